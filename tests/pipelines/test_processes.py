import operator
import os
import threading

import pytest

from pipelines import processes


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_job_is_done_once(workers):
    done = dict(processes.each(operator.neg, [1, 2, 3], workers))
    assert done == {1: -1, 2: -2, 3: -3}


def test_nothing_to_do():
    assert list(processes.each(operator.neg, [], workers=2)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_raises_arrives(workers):
    with pytest.raises(FileNotFoundError):
        list(processes.each(os.stat, ["/nowhere", "/"], workers))


def test_a_process_that_dies_is_told():
    with pytest.raises(processes.WorkerDiedError, match="a worker process died"):
        list(processes.each(os._exit, [1, 1], workers=2))


def test_nothing_of_the_pool_is_left_when_all_is_done():
    for _ in range(3):
        assert sorted(processes.each(abs, [-1, 2, 3], workers=2)) == [(-1, 1), (2, 2), (3, 3)]
        assert not [t for t in threading.enumerate() if "ExecutorManager" in type(t).__name__]
