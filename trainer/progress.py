"""Messages of a long job on stderr, also logged, and its progress: a bar on a terminal.

No library also writes plain lines in a log. There tqdm writes its bars separated by carriage
returns, and rich writes one bar at the end. Either would replace only the three lines that draw the
bar.
"""

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator

LOGGER = logging.getLogger("svilm.trainer")
"""The stage's logger. Modules may use children of it."""
LOGGER.addHandler(logging.NullHandler())  # Without it logging prints warnings a second time.
PRINTED = {"printed": True}  # `extra` of log records whose message is already on stderr

_WIDTH = 24  # characters
_BAR_EVERY_S = 0.2
_LINE_EVERY_S = 10.0


CLEAR = "\r\x1b[2K"  # clears the row that the cursor is in


def columns() -> int:
    """Return the width of stderr's terminal less 1: a longer row wraps and cannot be cleared."""
    try:
        found = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:  # stderr is not a terminal, or its size is unknown
        found = 0
    return (found or shutil.get_terminal_size().columns) - 1


def replace_row(text: str) -> None:
    """Replace the current row of stderr's terminal by a text, cut to the terminal's width."""
    print(CLEAR + text[: columns()], end="", file=sys.stderr, flush=True)


def say(message: str, level: int = logging.INFO) -> None:
    """Print a line on stderr, replacing a row that a terminal may show, and log it.

    Args:
      message: the line.
      level: the level in the log, such as logging.WARNING.
    """
    print(f"{CLEAR if sys.stderr.isatty() else ''}{message}", file=sys.stderr, flush=True)
    LOGGER.log(level, "%s", message, extra=PRINTED)


def warn(message: str) -> None:
    """Print a warning on stderr, as `say` does, and log it."""
    say(message, logging.WARNING)


class Bar:
    """A progress bar on stderr's terminal. Without a terminal, a line every 10 s."""

    def __init__(self, job: str, unit: str) -> None:
        """Start the clock.

        Args:
          job: the name of the job.
          unit: the unit of the counts, such as "clips".
        """
        self._job, self._unit = job, unit
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown = 0.0 if self._terminal else self._began

    def show(self, done: int, total: int) -> None:
        """Show the progress, at most every 0.2 s on a terminal and every 10 s in a log."""
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
            say(f"{self._job}: {counts}")

    def clear(self) -> None:
        """Remove the bar, so that a line can be printed."""
        if self._terminal:
            replace_row("")


@contextlib.contextmanager
def shown(job: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows (done, total) clips in a bar, and remove the bar at the end."""
    bar = Bar(job, "clips")
    try:
        yield bar.show
    finally:
        bar.clear()


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Show on stderr that a long operation is running. A terminal shows the elapsed seconds.

    Args:
      what: the operation, such as "pretrain: compiling the step".
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
    LOGGER.info("%s", what, extra=PRINTED)
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
        LOGGER.info("%s: ended after %.1f s", what, time.monotonic() - began)
