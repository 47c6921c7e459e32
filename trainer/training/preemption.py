"""Early stop of training by Ctrl-C, or by SIGTERM, a pod's notice of preemption."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Yield a function that returns, after each step, whether to save and stop there.

    The function takes the number of steps done. Every process must call it after every step. A
    second signal in a process that has saved nothing yet kills it.
    """
    with _several() if jax.process_count() > 1 else _alone() as asked:
        yield asked


@contextlib.contextmanager
def _alone() -> Iterator[Callable[[int], bool]]:
    received: list[int] = []
    before: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])
        # print is not reentrant, and the signal may have interrupted a call of it.
        os.write(2, b"\nsvilm-train: saving a checkpoint; signal again to stop without saving\n")

    for number in before:
        signal.signal(number, receive)
    try:
        yield lambda _: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _several() -> Iterator[Callable[[int], bool]]:
    """Use JAX's preemption service, which handles SIGTERM, to agree on a step to stop at.

    The process that gets the signal notifies the service. The service names a step that no process
    has passed.
    """
    before = signal.getsignal(signal.SIGINT)

    def receive(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        os.write(
            2,
            b"\nsvilm-train: stopping all processes; signal again to stop this one now\n",
        )
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, receive)
    try:
        yield multihost_utils.reached_preemption_sync_point
    finally:
        signal.signal(signal.SIGINT, before)
