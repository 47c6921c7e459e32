"""Several processes as one run, each with its own devices: and who writes."""

import json

import jax
import numpy as np
from jax.experimental import multihost_utils


def join(coordinator: str | None, count: int | None, number: int | None) -> None:
    """Joins this process to the others of its run, before JAX is used.

    Args:
      coordinator: host:port where process 0 listens; None where the cluster tells all three
        (TPU pods, Slurm, Open MPI, Kubernetes).
      count: of processes.
      number: this one's, from 0.
    """
    jax.distributed.initialize(coordinator, count, number)


def is_first() -> bool:
    """Whether this process writes what is written once for all."""
    return jax.process_index() == 0


def wait_for_all(moment: str) -> None:
    """Returns when all processes are at `moment`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(moment)


def total(count: int) -> int:
    """The sum of all processes' counts; all get it."""
    if jax.process_count() == 1:
        return count
    return int(multihost_utils.process_allgather(np.array(count)).sum())


def all_of(ours: list[str]) -> list[str]:
    """What each process has, one process's after another's; all get it."""
    if jax.process_count() == 1:
        return ours
    text = json.dumps(ours).encode()
    longest = int(multihost_utils.process_allgather(np.array(len(text))).max())
    texts = multihost_utils.process_allgather(np.frombuffer(text.ljust(longest), np.uint8))
    return [one for text in texts for one in json.loads(text.tobytes())]
