"""A check of which decoded frames are intact, from the errors that the decoder reports."""

import bisect
import itertools
import math
from typing import NamedTuple

_KEPT_KEYS = 8  # key frames that are kept; a decoder delays no more


class _Mark(NamedTuple):
    number: int  # packet number, in order of decoding
    time_us: float  # presentation time of its frame, microseconds


class FrameIntegrity:
    """A record of a decoder's errors and key frames, from a position in a file on.

    A frame is sound if no packet failed between the frame and the key frame that it depends on.
    Frames that follow a key frame in decoding order but precede it on screen may refer to earlier
    frames. So an error in them does not affect later frames.

    >>> film = FrameIntegrity(needs_key=True)
    >>> film.frame(0, 0, key=True, corrupt=False)
    True
    >>> film.failed(1, 40)
    >>> [film.frame(n, 40 * n, key=n == 3, corrupt=False) for n in (2, 3, 4)]
    [False, True, True]
    """

    def __init__(self, needs_key: bool) -> None:
        """Begin without an error and without a key frame.

        Args:
          needs_key: whether frames before the first key frame are unsound.
        """
        self._needs_key = needs_key
        self._failed: list[_Mark] = []
        self._keys: list[_Mark] = []

    def failed(self, number: int, time_us: int | None) -> None:
        """Record that a packet failed: it had an error, or packets before it are lost."""
        bisect.insort(
            self._failed,
            _Mark(number, math.inf if time_us is None else time_us),
            key=lambda mark: mark.number,
        )

    def frame(self, number: int, time_us: int | None, *, key: bool, corrupt: bool) -> bool:
        """Return whether a frame is sound; call it for every frame, in the decoder's order.

        Args:
          number: the number of its packet.
          time_us: presentation time, microseconds; None if it is never shown and only referred to.
          key: whether it refers to no other frame.
          corrupt: whether the decoder reports it as damaged.
        """
        if corrupt:
            self.failed(number, time_us)
        elif key and not self._has_failed(number):
            self._add_key(_Mark(number, -math.inf if time_us is None else time_us))
        for origin in reversed(self._keys):
            if origin.number <= number and (time_us is None or origin.time_us <= time_us):
                break
        else:
            if self._needs_key:
                return False
            origin = _Mark(-1, -math.inf)
        first = bisect.bisect_left(self._failed, origin.number, key=lambda mark: mark.number)
        for mark in itertools.islice(self._failed, first, None):
            if mark.number > number:
                break
            if mark.time_us >= origin.time_us:
                return False
        return True

    def _has_failed(self, number: int) -> bool:
        place = bisect.bisect_left(self._failed, number, key=lambda mark: mark.number)
        return place < len(self._failed) and self._failed[place].number == number

    def _add_key(self, key: _Mark) -> None:
        self._keys.append(key)
        self._keys.sort()
        if len(self._keys) > _KEPT_KEYS:
            del self._keys[:-_KEPT_KEYS]
            self._needs_key = True
            self._failed = [mark for mark in self._failed if mark.number >= self._keys[0].number]
