"""Work spread over processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """A process ended before its work did."""


def each(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Calls a function with each job; gives jobs and results as they are done, in any order.

    Args:
      function: of a module, so that it can be named to other processes.
      jobs: its arguments.
      workers: processes; with one, this process does the work.

    Raises:
      WorkerDiedError: a process was killed, by want of memory for instance.

    >>> sorted(each(abs, [-1, 2], workers=1))
    [(-1, 1), (2, 2)]
    """
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield job, function(job)
        return
    # spawn: a forked child of a process with threads (Beam's, TensorFlow's) may hang.
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
                "free some memory or take fewer --workers, and run again"
            ) from None
        finally:
            # After all jobs the pool is waited for: its thread would meet closed pipes as Python
            # ends, and complain.
            if done < len(jobs):
                pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """Prepare a worker: Ctrl-C is its parent's to answer, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # The pool's queue never ends for a worker, as it holds both ends: a killed parent left it.
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
