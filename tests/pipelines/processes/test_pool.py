import operator
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipelines.processes import pool


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_job_runs_once(workers):
    done = dict(pool.each(operator.neg, [1, 2, 3], workers))
    assert done == {1: -1, 2: -2, 3: -3}


def test_an_empty_list_of_jobs():
    assert list(pool.each(operator.neg, [], workers=2)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_exceptions_of_jobs_propagate(workers):
    with pytest.raises(FileNotFoundError):
        list(pool.each(os.stat, ["/nowhere", "/"], workers))


def test_a_dead_process_is_reported():
    with pytest.raises(pool.WorkerDiedError, match="a worker process died"):
        list(pool.each(os._exit, [1, 1], workers=2))


def test_the_pool_leaves_no_process():
    for _ in range(3):
        assert sorted(pool.each(abs, [-1, 2, 3], workers=2)) == [(-1, 1), (2, 2), (3, 3)]
        assert not [t for t in threading.enumerate() if "ExecutorManager" in type(t).__name__]


def test_workers_exit_with_a_killed_parent():
    program = (
        "import time; from pipelines.processes import pool\n"
        "if __name__ == '__main__': list(pool.each(time.sleep, [120] * 4, 2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[3])
    until = time.monotonic() + 60
    workers: list[psutil.Process] = []
    while sum("--multiprocessing-fork" in one.cmdline() for one in workers) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
        workers = psutil.Process(parent.pid).children(recursive=True)
    time.sleep(2)  # The workers are running.
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, left = psutil.wait_procs(workers, timeout=20)
    for one in left:
        one.kill()
    assert not left
