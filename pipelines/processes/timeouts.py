"""Waits for another process with a timeout."""

import contextlib
import select
import subprocess
import time
from collections.abc import Iterator

_MOMENT_S = 1.0


class Patience:
    """A timeout for another process that elapses only while this process runs.

    Waits must not time out because a build was suspended and resumed, or because the machine hung.
    So each wait is split into intervals, and none counts for more than its intended length.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # time left

    def readable(self, descriptor: int) -> bool:
        """Wait until a descriptor has data or is at its end; return False on timeout."""
        while self.seconds > 0:
            with self._moment() as moment:
                found = select.select([descriptor], [], [], moment)[0]
            if found:
                return True
        return False

    def sleeps(self, seconds: float) -> bool:
        """Sleep for at most `seconds`; return False if no time is left."""
        if self.seconds <= 0:
            return False
        with self._moment(seconds) as moment:
            time.sleep(moment)
        return True

    def answer(self, child: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
        """Wait for a child to end and return its standard output and standard error.

        Raises:
          subprocess.TimeoutExpired: the child did not end in time and was killed.
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
