"""A queue of bounded length before the encoder, which is used by one request at a time."""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread

from trainer.errors import UserError
from trainer.server.metrics import Metrics

_WAITING = 128  # requests
_PATIENCE_S = 20.0


class BusyError(UserError):
    """A full queue, or a turn that did not come in time."""


class Gate:
    """Calls of the encoder, one at a time, in the order of the requests."""

    def __init__(self, metrics: Metrics, waiting: int = _WAITING) -> None:
        """Initialize an empty queue for at most `waiting` requests."""
        self._turn = anyio.Semaphore(1)
        self._metrics = metrics
        self._most = waiting
        self._waiting = 0

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread when its turn comes.

        Raises:
          BusyError: the queue is full, or the turn did not come in time.
        """
        if self._waiting >= self._most:
            raise BusyError(f"{self._waiting} requests wait for the encoder: try again later")
        self._waiting += 1
        self._metrics.waiting.set(self._waiting)
        try:
            with anyio.fail_after(_PATIENCE_S):
                await self._turn.acquire()
        except TimeoutError:
            raise BusyError(f"the encoder was busy for {_PATIENCE_S:.0f} s: try again") from None
        finally:
            self._waiting -= 1
            self._metrics.waiting.set(self._waiting)
        try:
            with self._metrics.encoding.time():
                return await anyio.to_thread.run_sync(function, *arguments)
        finally:
            self._turn.release()
