"""Batches made ready before they are asked for."""

import collections
import concurrent.futures
from collections.abc import Callable, Generator
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

# Of two, one may be late without anyone waiting; more would only take memory.
_DEPTH = 2


def ahead(
    batches: Generator[A, None, None], prepare: Callable[[A], B], depth: int = _DEPTH
) -> Generator[B, None, None]:
    """Yields `prepare(batch)` of each batch, in order, `depth` of them made in advance.

    A thread draws and prepares them, so that tokenizing and the way to the device take no time of
    the one that trains. Closing the generator closes `batches`.

    >>> list(ahead((n for n in range(3)), prepare=str))
    ['0', '1', '2']
    """
    thread = concurrent.futures.ThreadPoolExecutor(1, "ahead")

    def make() -> tuple[B] | None:
        for batch in batches:
            return (prepare(batch),)
        return None

    ready = collections.deque(thread.submit(make) for _ in range(depth))
    try:
        while made := ready.popleft().result():
            ready.append(thread.submit(make))
            yield made[0]
    finally:
        thread.shutdown(cancel_futures=True)
        batches.close()
