"""Progress of a long job: a bar on a terminal, plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_WIDTH = 24  # characters
_BAR_EVERY_S = 0.2
_LINE_EVERY_S = 10.0


class Bar:
    """A bar on stderr, if that is a terminal; else a line now and then, or nothing."""

    def __init__(self, job: str, unit: str, *, done: int = 0, in_logs: bool = True) -> None:
        """Starts the clock.

        Args:
          job: its name.
          unit: what is counted.
          done: how many were before.
          in_logs: whether lines are written where there is no terminal.
        """
        self._job, self._unit, self._before = job, unit, done
        self._terminal, self._in_logs = sys.stderr.isatty(), in_logs
        self._began = time.monotonic()
        self._shown = 0.0 if self._terminal else self._began

    def show(self, done: int, total: int) -> None:
        """Shows how far the job is, unless the last time was a moment ago."""
        now = time.monotonic()
        if not (self._terminal or self._in_logs) or now - self._shown < (
            _BAR_EVERY_S if self._terminal else _LINE_EVERY_S
        ):
            return
        self._shown = now
        counts = f"{done:,}/{total:,} {self._unit}"
        if done > self._before:
            left = round((now - self._began) / (done - self._before) * (total - done))
            counts += f", {left // 60}:{left % 60:02d} left"
        if self._terminal:
            filled = _WIDTH * done // max(total, 1)
            bar = "█" * filled + "·" * (_WIDTH - filled)
            print(f"\r\x1b[2K{self._job} {bar} {counts}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{self._job}: {counts}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Removes the bar, for a line to be printed."""
        if self._terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown(job: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, total) clips that shows them; removes its bar at the end."""
    bar = Bar(job, "clips")
    try:
        yield bar.show
    finally:
        bar.clear()
