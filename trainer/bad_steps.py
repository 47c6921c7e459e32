"""Steps that would spoil a run: a loss, gradient or parameter that is not finite, or a spike.

The step itself tells, on the device, and can leave its update out; the host learns of it when it
reads that step's figures, some steps later.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PyTree

from trainer import processes, progress
from trainer.configs.config import Config, SpikeConfig
from trainer.run_path import RunPath
from trainer.step_lines import Lines


@struct.dataclass
class Watch:
    """What is remembered of earlier steps; part of the training state."""

    loss: Any  # float32 [], a decayed sum of the losses of good steps
    good: Any  # int32 [], steps
    skipped: Any  # int32 [], steps without an update
    in_a_row: Any  # int32 [], how many of these were the last

    @classmethod
    def begin(cls) -> "Watch":
        """Of no step."""
        return cls(jnp.zeros(()), *(jnp.zeros((), jnp.int32) for _ in range(3)))

    def mean_loss(self, spike: SpikeConfig) -> Float[Array, ""]:
        """Σ dⁱ(1 − d)·loss₋ᵢ over the good steps, over the sum of its weights; 0 of none."""
        weights = 1.0 - spike.loss_decay ** self.good.astype(jnp.float32)
        return self.loss / jnp.where(self.good > 0, weights, 1.0)

    def is_bad(
        self, loss: Float[Array, ""], gradient_norm: Float[Array, ""], spike: SpikeConfig
    ) -> Bool[Array, ""]:
        """Whether a step's update would spoil the run.

        >>> two = Watch.begin().after(jnp.float32(1.0), jnp.bool(False), SpikeConfig())
        >>> limited = SpikeConfig(loss_factor=2.0, from_step=1)
        >>> [bool(two.is_bad(jnp.float32(x), jnp.float32(1.0), limited)) for x in (1.9, 2.1)]
        [False, True]
        """
        bad = ~(jnp.isfinite(loss) & jnp.isfinite(gradient_norm))
        if spike.gradient_norm is not None:
            bad |= gradient_norm > spike.gradient_norm
        if spike.loss_factor is not None:
            limit = spike.loss_factor * self.mean_loss(spike)
            bad |= (self.good >= spike.from_step) & (loss > limit)
        return bad

    def after(self, loss: Float[Array, ""], bad: Bool[Array, ""], spike: SpikeConfig) -> "Watch":
        """With one more step."""
        decayed = spike.loss_decay * self.loss + (1.0 - spike.loss_decay) * loss
        skips = bad.astype(jnp.int32)
        return Watch(
            loss=jnp.where(bad, self.loss, decayed),
            good=self.good + 1 - skips,
            skipped=self.skipped + skips,
            in_a_row=jnp.where(bad, self.in_a_row + 1, 0),
        )


def all_finite(*trees: PyTree) -> Bool[Array, ""]:
    """Whether all floating-point numbers of some trees are finite; for compiled functions.

    >>> bool(all_finite({"kernel": jnp.ones(2)}, {"count": jnp.int32(1)}))
    True
    >>> bool(all_finite({"kernel": jnp.array([1.0, jnp.inf])}))
    False
    """
    floats = [leaf for leaf in jax.tree.leaves(trees) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    wrong = sum(jnp.sum(~jnp.isfinite(leaf), dtype=jnp.float32) for leaf in floats)
    return jnp.asarray(wrong) == 0


class BadStepError(RuntimeError):
    """A step after which a run must not go on; says what was wrong, and with which clips."""


class BadSteps:
    """Reports bad steps in bad_steps.jsonl, and ends the run where it is to stop.

    A line is {"step", "reason", "loss", "gradient_norm", "clip_ids"}, the clips in the order of
    the global batch; "step" counts updates as metrics.jsonl does, this one included.
    """

    def __init__(self, run: RunPath, config: Config, *, start: int, writes: bool) -> None:
        """Forgets what was reported of steps after `start`.

        Args:
          run: its folder.
          config: the run's.
          start: steps made so far.
          writes: whether this process writes what is written once for all.
        """
        self._config = config
        self._path = run / "bad_steps.jsonl"
        self._lines = Lines(self._path, start) if writes else None

    def check(
        self, step: int, measured: dict[str, Any], clips: list[str], checkpoint: int | None
    ) -> None:
        """Looks at one step's figures, in order, once they are there; all processes do.

        Args:
          step: updates made, this one included.
          measured: what `train_step` returned of it.
          clips: ids of those that this process read for it, stand-ins of corrupt ones included.
          checkpoint: the step of the last checkpoint, for the message.

        Raises:
          BadStepError: the step was bad and the configuration says to stop, or it is one more in a
            row than are skipped.
        """
        in_a_row = int(measured["bad_in_a_row"])
        if not in_a_row:
            return
        loss, norm = float(measured["loss"]), float(measured["gradient_norm"])
        finite = bool(measured["state_finite"])
        reason = self._reason(loss, norm, float(measured["mean_loss"]), finite=finite)
        clips = processes.all_of(clips)
        if self._lines:
            record = {
                "step": step,
                "reason": reason,
                "loss": loss if math.isfinite(loss) else None,
                "gradient_norm": norm if math.isfinite(norm) else None,
                "clip_ids": clips,
            }
            self._lines.append(record)
            self._lines.flush()
        if self._config.on_bad_step == "skip" and in_a_row <= self._config.skip_in_a_row:
            if self._lines:
                progress.say(f"svilm-train: no update at step {step}: {reason}")
            return
        kept = "no checkpoint was saved" if checkpoint is None else f"step {checkpoint} is kept"
        more = f" and {len(clips) - 3} more" if len(clips) > 3 else ""
        advice = (
            "the same command with --set on_bad_step=skip leaves such steps out"
            if self._config.on_bad_step == "stop"
            else f"there were {in_a_row} in a row"
        )
        raise BadStepError(
            f"{reason} at step {step} ({kept}), with clips {', '.join(clips[:3])}{more} (all in "
            f"{self._path}): {advice}; or train again into another folder with a lower "
            "optimiser.learning_rate"
        )

    def _reason(self, loss: float, norm: float, mean_loss: float, *, finite: bool) -> str:
        spike = self._config.spike
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        if not finite:
            return "the update makes parameters, or optimiser state, that are not finite"
        if spike.gradient_norm is not None and norm > spike.gradient_norm:
            return f"the gradient's norm is {norm:.4g}, above spike.gradient_norm"
        return f"the loss is {loss:.4g}, above spike.loss_factor × its mean {mean_loss:.4g}"
