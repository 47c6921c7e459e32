"""Progress of a long job: a bar on a terminal, plain lines in a log."""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator

_WIDTH = 24  # characters
_BAR_EVERY_S = 0.2
_LINE_EVERY_S = 10.0


_CLEAR = "\r\x1b[2K"  # the row that the cursor is in


def columns() -> int:
    """Return how long a row of stderr's terminal may be: a longer one wraps, and is not cleared."""
    try:
        found = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:  # no terminal, or none that tells
        found = 0
    return (found or shutil.get_terminal_size().columns) - 1


def replace_row(text: str) -> None:
    """Show a text in place of the row of stderr's terminal, cut to its width."""
    print(_CLEAR + text[: columns()], end="", file=sys.stderr, flush=True)


def say(message: str) -> None:
    """Print a line on stderr, in place of a row that a terminal may show."""
    print(f"{_CLEAR if sys.stderr.isatty() else ''}{message}", file=sys.stderr, flush=True)


class Bar:
    """A bar on stderr, if that is a terminal; else a line now and then."""

    def __init__(self, job: str, unit: str) -> None:
        """Starts the clock.

        Args:
          job: its name.
          unit: what is counted.
        """
        self._job, self._unit = job, unit
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown = 0.0 if self._terminal else self._began

    def show(self, done: int, total: int) -> None:
        """Shows how far the job is, unless the last time was a moment ago."""
        now = time.monotonic()
        if now - self._shown < (_BAR_EVERY_S if self._terminal else _LINE_EVERY_S):
            return
        self._shown = now
        counts = f"{done:,}/{total:,} {self._unit}"
        if done > 0:
            left = round((now - self._began) / done * (total - done))
            counts += f", {left // 60}:{left % 60:02d} left"
        if self._terminal:
            filled = _WIDTH * done // max(total, 1)
            bar = "█" * filled + "·" * (_WIDTH - filled)
            replace_row(f"{self._job} {bar} {counts}")
        else:
            print(f"{self._job}: {counts}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Removes the bar, for a line to be printed."""
        if self._terminal:
            replace_row("")


@contextlib.contextmanager
def shown(job: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, total) clips that shows them; removes its bar at the end."""
    bar = Bar(job, "clips")
    try:
        yield bar.show
    finally:
        bar.clear()


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Show on stderr that something long goes on: a terminal sees the seconds pass.

    Args:
      what: such as "pretrain: compiling the step".
    """
    terminal, began = sys.stderr.isatty(), time.monotonic()
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(1.0):
            seconds = round(time.monotonic() - began)
            replace_row(f"{what} … {seconds} s")

    if terminal:
        replace_row(f"{what} …")
    else:
        print(f"{what} …", file=sys.stderr, flush=True)
    ticking = threading.Thread(target=tick, daemon=True)
    if terminal:
        ticking.start()
    try:
        yield
    finally:
        ended.set()
        if terminal:
            ticking.join()
            replace_row("")
