"""Prefetching of batches in a thread."""

import collections
import concurrent.futures
from collections.abc import Callable, Generator
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

# With two prefetched batches, one may be late without delay. More would only take memory.
_DEPTH = 2


def prefetch(
    batches: Generator[A, None, None], prepare: Callable[[A], B], depth: int = _DEPTH
) -> Generator[B, None, None]:
    """Yield `prepare(batch)` of each batch, in order, with `depth` of them prefetched.

    A thread draws and prepares the batches. So tokenizing and the transfer to the device do not
    delay the training thread. Closing the generator closes `batches`.

    >>> list(prefetch((n for n in range(3)), prepare=str))
    ['0', '1', '2']
    """
    thread = concurrent.futures.ThreadPoolExecutor(1, "prefetch")

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
