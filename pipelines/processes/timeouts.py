"""Waits for another process with a timeout."""

import contextlib
import select
import subprocess
import time
from collections.abc import Iterator

_INTERVAL_S = 1.0


class Timeout:
    """A timeout for another process that elapses only while this process runs.

    Waits must not time out because a build was suspended and resumed, or because the machine hung.
    So each wait is split into intervals, and none counts for more than its intended length.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # time left

    def wait_readable(self, descriptor: int) -> bool:
        """Wait until a descriptor has data or is at its end; return False on timeout."""
        while self.seconds > 0:
            with self._interval() as interval:
                found = select.select([descriptor], [], [], interval)[0]
            if found:
                return True
        return False

    def sleep(self, seconds: float) -> bool:
        """Sleep for at most `seconds`; return False if no time is left."""
        if self.seconds <= 0:
            return False
        with self._interval(seconds) as interval:
            time.sleep(interval)
        return True

    def communicate(self, child: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
        """Wait for a child to end and return its standard output and standard error.

        Raises:
          subprocess.TimeoutExpired: the child did not end in time and was killed.
        """
        while self.seconds > 0:
            with contextlib.suppress(subprocess.TimeoutExpired), self._interval() as interval:
                return child.communicate(timeout=interval)
        child.kill()
        child.communicate()
        raise subprocess.TimeoutExpired(child.args, 0)

    @contextlib.contextmanager
    def _interval(self, maximum: float = _INTERVAL_S) -> Iterator[float]:
        interval = min(self.seconds, maximum)
        began = time.monotonic()
        try:
            yield interval
        finally:
            self.seconds -= min(time.monotonic() - began, interval)
