import threading

import pytest

from trainer.data.prefetch import prefetch


def test_two_are_made_in_advance_and_no_more():
    drawn, made = [], threading.Semaphore(0)

    def numbers():
        for number in range(6):
            drawn.append(number)
            yield number

    def prepare(number):
        made.release()
        return -number

    batches = prefetch(numbers(), prepare)
    for place in range(6):
        assert next(batches) == -place
        for _ in range(3 if place == 0 else place < 4):
            assert made.acquire(timeout=60)
        assert drawn == list(range(min(place + 3, 6)))
    assert next(batches, None) is None


def test_an_error_comes_after_the_batches_before_it():
    def numbers():
        yield 1
        raise OSError("no more")

    batches = prefetch(numbers(), prepare=str)
    assert next(batches) == "1"
    with pytest.raises(OSError, match="no more"):
        next(batches)


def test_closing_closes_the_source():
    closed = []

    def numbers():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread())

    batches = prefetch(numbers(), prepare=str)
    next(batches)
    batches.close()
    assert len(closed) == 1
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())
