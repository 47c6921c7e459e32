"""Waiting for another process, for so long and no longer."""

import select
import time

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
            moment = min(self.seconds, _MOMENT_S)
            began = time.monotonic()
            found = select.select([descriptor], [], [], moment)[0]
            self.seconds -= min(time.monotonic() - began, moment)
            if found:
                return True
        return False
