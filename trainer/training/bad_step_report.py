"""Reports of bad steps: a loss, gradient or parameter that is not finite, or a spike.

The step itself finds them on the device (method/bad_steps.py), and can leave its update out. The
host reads that step's figures some steps later.
"""

import math
from typing import Any

from trainer import progress
from trainer.configs.config import Config
from trainer.distributed import multihost
from trainer.runs.run_path import RunPath
from trainer.training.jsonl_log import Lines


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
        clips = multihost.all_of(clips)
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
            "optimizer.learning_rate"
        )

    def _reason(self, loss: float, norm: float, mean_loss: float, *, finite: bool) -> str:
        spike = self._config.spike
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        if not finite:
            return "the update makes parameters, or optimizer state, that are not finite"
        if spike.gradient_norm is not None and norm > spike.gradient_norm:
            return f"the gradient's norm is {norm:.4g}, above spike.gradient_norm"
        return f"the loss is {loss:.4g}, above spike.loss_factor × its mean {mean_loss:.4g}"
