"""Progress of a pass over a snapshot: a bar on a terminal, plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_BAR = 24  # characters
_BAR_EVERY_S = 0.2
_LINE_EVERY_S = 10.0


@contextlib.contextmanager
def shown(job: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, total) clips that shows them on stderr; removes its bar."""
    terminal = sys.stderr.isatty()
    last = 0.0 if terminal else time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last < (_BAR_EVERY_S if terminal else _LINE_EVERY_S):
            return
        last = time.monotonic()
        counts = f"{done:,}/{total:,} clips"
        if terminal:
            filled = _BAR * done // max(total, 1)
            bar = "█" * filled + "·" * (_BAR - filled)
            print(f"\r\x1b[2K{job} {bar} {counts}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{job}: {counts}", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
