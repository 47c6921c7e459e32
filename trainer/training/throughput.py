"""How fast a run's steps are made, from one logged step to the next, and what they take."""

import contextlib
import time
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from trainer.configs.config import Config
from trainer.distributed import hardware

_GIB = 2**30


class Pace:
    """A clock of training: starts when it is made, and again with each reading."""

    def __init__(self, config: Config, mesh: Mesh, step_flops: int, *, start: int) -> None:
        """Starts the clock.

        Args:
          config: the run's.
          mesh: of it.
          step_flops: what a step takes (trainer/distributed/flops.py).
          start: steps made so far.
        """
        self._batch = config.batch
        chips = [hardware.chip(device.device_kind) for device in mesh.devices.flat]
        peaks = [chip.flops for chip in chips if chip]
        # Seconds that the step's products would take at the chips' peak; None of chips unknown.
        known = len(peaks) == len(chips)
        self._ideal_s = step_flops / sum(peaks) if known else None
        self._restart(start)

    def _restart(self, step: int) -> None:
        self._step, self._began = step, time.monotonic()
        self._waited_s = self._other_s = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts what is done within as waiting for input."""
        began = time.monotonic()
        yield
        self._waited_s += time.monotonic() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count what is done within: it is no training."""
        began = time.monotonic()
        yield
        self._other_s += time.monotonic() - began

    def read(self, step: int) -> dict[str, float]:
        """What the steps since the last reading took, and starts anew.

        Args:
          step: updates made, this step's included.

        Returns:
          step_seconds: a step's, mean. clips_per_second. input_wait: the share of the time in which
          the next batch was not there. flops_utilisation, where the chips are known
          (distributed/hardware.py): the share of their peak in bfloat16 that the step's products
          alone (distributed/flops.py) amount to. device_memory_gib, where devices tell it: the most
          that was in use so far, on the fullest of this process's devices.
        """
        elapsed = time.monotonic() - self._began - self._other_s
        step_s = elapsed / (step - self._step)
        values = {
            "step_seconds": step_s,
            "clips_per_second": self._batch / step_s,
            "input_wait": self._waited_s / elapsed,
        }
        if self._ideal_s is not None:
            values["flops_utilisation"] = self._ideal_s / step_s
        told = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
        if told:
            most = max(stats["peak_bytes_in_use"] for stats in told)
            values["device_memory_gib"] = most / _GIB
        self._restart(step)
        return values
