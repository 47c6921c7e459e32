"""A process pool on this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pipelines.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


class WorkerDiedError(UserError, RuntimeError):
    """A worker process that ended before its work was done."""


def each(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Call a function with each job and yield (job, result) in order of completion.

    Args:
      function: a module-level function, so that it can be pickled.
      jobs: the arguments, one for each call.
      workers: number of processes; with one, this process does the work.

    Raises:
      WorkerDiedError: a process was killed, for instance for lack of memory.

    >>> sorted(each(abs, [-1, 2], workers=1))
    [(-1, 1), (2, 2)]
    """
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield job, function(job)
        return
    # Use spawn: a forked child of a process with threads (Beam's, TensorFlow's) may hang.
    with ProcessPoolExecutor(
        min(workers, len(jobs)),
        multiprocessing.get_context("spawn"),
        initializer=_begin,
    ) as pool:
        futures = {pool.submit(function, job): job for job in jobs}
        done = 0
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
                done += 1
        except BrokenProcessPool:
            raise WorkerDiedError(
                f"a worker process died after {done:,} of {len(jobs):,} jobs: "
                "free memory or reduce --workers, and run the command again"
            ) from None
        finally:
            # After the last job, wait for the pool. Otherwise its thread would find closed pipes at
            # the exit of Python and print an error.
            if done < len(jobs):
                pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """Prepare a worker, which ignores Ctrl-C (the parent handles it) and exits with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # If the parent is killed, a worker never sees the end of the pool's queue, since it holds both
    # ends of the pipe itself.
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
