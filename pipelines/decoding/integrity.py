"""Which decoded frames can be relied on, by the errors that the decoder reports."""

import bisect
import itertools
import math
from typing import NamedTuple

_KEPT_KEYS = 8  # key frames that are remembered: a decoder holds back no more


class _Mark(NamedTuple):
    number: int  # of a packet, in order of decoding
    time_us: float  # when its frame is shown


class Soundness:
    """Follows a decoder from a place in a file on.

    A frame is sound if no packet failed between the key frame that decoding needs for it and
    the frame itself. Frames that follow a key frame in decoding order but are shown before it
    may refer to earlier frames, so an error in them says nothing about later ones.

    >>> film = Soundness(needs_key=True)
    >>> film.frame(0, 0, key=True, corrupt=False)
    True
    >>> film.failed(1, 40)
    >>> [film.frame(n, 40 * n, key=n == 3, corrupt=False) for n in (2, 3, 4)]
    [False, True, True]
    """

    def __init__(self, needs_key: bool) -> None:
        """Begins anew.

        Args:
          needs_key: whether frames before the first key frame are unsound.
        """
        self._needs_key = needs_key
        self._failed: list[_Mark] = []
        self._keys: list[_Mark] = []

    def failed(self, number: int, time_us: int | None) -> None:
        """Notes that a packet failed: it had an error, or packets before it are lost."""
        bisect.insort(
            self._failed,
            _Mark(number, math.inf if time_us is None else time_us),
            key=lambda mark: mark.number,
        )

    def frame(self, number: int, time_us: int | None, *, key: bool, corrupt: bool) -> bool:
        """Returns whether a frame is sound; takes every frame, in the order in which they come.

        Args:
          number: its packet's.
          time_us: when it is shown; None: never, others only need it.
          key: whether it needs no other.
          corrupt: whether the decoder says that it is damaged.
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
