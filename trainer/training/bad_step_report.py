"""Reports of bad steps: a loss, gradient or parameter that is not finite, or a spike.

The step itself detects them on the device (method/bad_steps.py), and can skip its update. The host
reads that step's metrics some steps later.
"""

import math
from typing import Any

from trainer import progress
from trainer.configs.config import Config
from trainer.distributed import multihost
from trainer.errors import UserError
from trainer.runs.run_path import RunPath
from trainer.training.jsonl_log import Lines


class BadStepError(UserError, RuntimeError):
    """A step after which a run must stop; the message has the reason and the clips."""


class BadSteps:
    """Writer of bad_steps.jsonl, which also stops the run as configured.

    A line is {"step", "reason", "loss", "gradient_norm", "clip_ids"}. The clips are in the order of
    the global batch. "step" counts updates as metrics.jsonl does, this one included.
    """

    def __init__(self, run: RunPath, config: Config, *, start: int, writes: bool) -> None:
        """Open the file, and remove the records of steps after `start`.

        Args:
          run: the run's folder.
          config: the run's configuration.
          start: number of steps done so far.
          writes: True in the process that writes the files of the whole run.
        """
        self._config = config
        self._path = run / "bad_steps.jsonl"
        self._lines = Lines(self._path, start) if writes else None

    def check(
        self, step: int, measured: dict[str, Any], clips: list[str], checkpoint: int | None
    ) -> None:
        """Check one step's metrics, in the order of the steps; all processes must call it.

        Args:
          step: number of updates, this one included.
          measured: metrics of the step, from `train_step`.
          clips: ids of the clips that this process read for it, including replacements of corrupt
            ones.
          checkpoint: step of the last checkpoint, for the message.

        Raises:
          BadStepError: the step was bad and the configuration says to stop, or more steps in a row
            were bad than it allows to skip.
        """
        in_a_row = int(measured["bad_in_a_row"])
        if not in_a_row:
            return
        loss, norm = float(measured["loss"]), float(measured["gradient_norm"])
        finite = bool(measured["state_finite"])
        reason = self._reason(loss, norm, float(measured["mean_loss"]), finite=finite)
        clips = multihost.gather_from_processes(clips)
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
                progress.warn(f"svilm-train: no update at step {step}: {reason}")
            return
        kept = (
            "no checkpoint was saved"
            if checkpoint is None
            else f"step {checkpoint} is the last saved checkpoint"
        )
        more = f" and {len(clips) - 3} more" if len(clips) > 3 else ""
        advice = (
            "run the same command with --set on_bad_step=skip to skip such steps"
            if self._config.on_bad_step == "stop"
            else f"on_bad_step=skip allows {self._config.skip_in_a_row} in a row, this is number "
            f"{in_a_row}"
        )
        raise BadStepError(
            f"{reason} at step {step} ({kept}), with clips {', '.join(clips[:3])}{more} (all in "
            f"{self._path}): {advice}; or train a new run with a lower optimizer.learning_rate"
        )

    def _reason(self, loss: float, norm: float, mean_loss: float, *, finite: bool) -> str:
        spike = self._config.spike
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient norm is {norm}"
        if not finite:
            return "the update makes parameters or optimizer state non-finite"
        if spike.gradient_norm is not None and norm > spike.gradient_norm:
            return f"the gradient norm is {norm:.4g}, above spike.gradient_norm"
        return f"the loss is {loss:.4g}, above spike.loss_factor × its mean {mean_loss:.4g}"
