"""Measurement of a run's throughput, utilisation and memory between logging steps."""

import contextlib
import time
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from trainer.configs.config import Config
from trainer.distributed import hardware

_GIB = 2**30


class ThroughputMeter:
    """Timer of training throughput between logging steps, which starts when it is created."""

    def __init__(self, config: Config, mesh: Mesh, step_flops: int, *, start: int) -> None:
        """Start the timer.

        Args:
          config: the run's configuration.
          mesh: the run's devices.
          step_flops: FLOPs of a step (trainer/distributed/flops.py).
          start: number of steps done so far.
        """
        self._batch = config.batch
        chips = [hardware.chip(device.device_kind) for device in mesh.devices.flat]
        peaks = [chip.flops for chip in chips if chip]
        # Seconds that the step's products would take at the chips' peak; None for unknown chips.
        known = len(peaks) == len(chips)
        self._ideal_s = step_flops / sum(peaks) if known else None
        self._restart(start)

    def _restart(self, step: int) -> None:
        self._step, self._began = step, time.monotonic()
        self._waited_s = self._other_s = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the enclosed time as waiting for input."""
        began = time.monotonic()
        yield
        self._waited_s += time.monotonic() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the enclosed time, which is not training."""
        began = time.monotonic()
        yield
        self._other_s += time.monotonic() - began

    def read(self, step: int) -> dict[str, float]:
        """Return the metrics of the steps since the last reading, and restart the timer.

        Args:
          step: number of updates, this step's included.

        Returns:
          step_seconds: mean seconds per step. clips_per_second. input_wait: the fraction of the
          time spent waiting for the next batch. flops_utilisation, for known chips
          (distributed/hardware.py): the rate of the step's products alone (distributed/flops.py),
          as a fraction of the chips' bfloat16 peak. device_memory_gib, if devices report it: the
          maximum memory in use so far, on the fullest of this process's devices.
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
