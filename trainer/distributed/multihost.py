"""Several processes as one run, each with its own devices; the first process writes."""

import json

import jax
import numpy as np
from jax.experimental import multihost_utils


def join(coordinator: str | None, count: int | None, number: int | None) -> None:
    """Join this process to the others of its run; call it before JAX is used.

    Args:
      coordinator: host:port where process 0 listens; None if the cluster provides all three
        arguments (TPU pods, Slurm, Open MPI, Kubernetes).
      count: number of processes.
      number: index of this process, from 0.
    """
    jax.distributed.initialize(coordinator, count, number)


def is_first() -> bool:
    """Return whether this process is the first, which writes the files of the whole run."""
    return jax.process_index() == 0


def wait_for_all(moment: str) -> None:
    """Block until all processes have reached `moment`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(moment)


def sum_over_processes(count: int) -> int:
    """Return the sum of all processes' counts, in every process."""
    if jax.process_count() == 1:
        return count
    return int(multihost_utils.process_allgather(np.array(count)).sum())


def gather_from_processes(ours: list[str]) -> list[str]:
    """Return the concatenation of all processes' lists, in every process."""
    if jax.process_count() == 1:
        return ours
    text = json.dumps(ours).encode()
    longest = int(multihost_utils.process_allgather(np.array(len(text))).max())
    texts = multihost_utils.process_allgather(np.frombuffer(text.ljust(longest), np.uint8))
    return [one for text in texts for one in json.loads(text.tobytes())]
