"""Waiting for another process, for so long and no longer."""

import contextlib
import select
import subprocess
import time
from collections.abc import Iterator

_MOMENT_S = 1.0


class Patience:
    """Time that another process may take, counted only while this one runs, too.

    A build that is stopped and goes on, or a machine that hangs, must not find everybody late: no
    moment of waiting counts for more than it was meant to last.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # that are left

    def readable(self, descriptor: int) -> bool:
        """Waits until there is something to read, or the end; False if there is no time left."""
        while self.seconds > 0:
            with self._moment() as moment:
                found = select.select([descriptor], [], [], moment)[0]
            if found:
                return True
        return False

    def sleeps(self, seconds: float) -> bool:
        """Sleeps for a moment; False if there is no time left for it."""
        if self.seconds <= 0:
            return False
        with self._moment(seconds) as moment:
            time.sleep(moment)
        return True

    def answer(self, child: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
        """Waits for a child's end; returns what it said on standard output and standard error.

        Raises:
          subprocess.TimeoutExpired: it has not ended in time, and is killed.
        """
        while self.seconds > 0:
            with contextlib.suppress(subprocess.TimeoutExpired), self._moment() as moment:
                return child.communicate(timeout=moment)
        child.kill()
        child.communicate()
        raise subprocess.TimeoutExpired(child.args, 0)

    @contextlib.contextmanager
    def _moment(self, most: float = _MOMENT_S) -> Iterator[float]:
        moment = min(self.seconds, most)
        began = time.monotonic()
        try:
            yield moment
        finally:
            self.seconds -= min(time.monotonic() - began, moment)
