"""A trace of some training steps, for TensorBoard's profiler or Perfetto."""

import pathlib
import tempfile
from typing import Any

import jax

from trainer.data.folder import in_bucket
from trainer.runs.run_path import RunPath, upload


class Profile:
    """Profiler of steps `first` to `last`, both included, into `profile/` of the run's folder."""

    def __init__(self, run: RunPath, steps: tuple[int, int] | None) -> None:
        """Args: run: its folder. steps: first and last step, counted from 1; None: no step."""
        self._folder, self._steps = run / "profile", steps
        self._local: tempfile.TemporaryDirectory[str] | None = None
        self._records = False

    def before(self, step: int) -> None:
        """Begin to record if this step is the first remaining one of the given steps."""
        if self._steps and self._steps[0] <= step <= self._steps[1] and not self._records:
            if in_bucket(self._folder):
                self._local = tempfile.TemporaryDirectory(prefix="svilm-")
            jax.profiler.start_trace(self._local.name if self._local else self._folder)
            self._records = True

    def after(self, step: int, measured: dict[str, Any], *, ends: bool) -> None:
        """Write the trace after the last given step, or the run's last."""
        if self._records and self._steps and (ends or step >= self._steps[1]):
            jax.block_until_ready(measured)
            jax.profiler.stop_trace()
            if self._local:
                with self._local as written:
                    upload(pathlib.Path(written), self._folder)
            self._records = False
