"""A scheduler of the packets to decode for the frames that are on screen at given times."""

import bisect
import collections
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from pipelines.decoding.last_frame import LastFrame

_MAX_HELD = 512  # maximum number of packets kept undecoded while waiting for a key frame
_MAX_KNOWN = 1024  # maximum number of presentation times kept; a codec reorders about 16


P = TypeVar("P")  # type of a packet, which is handed on as it is


class Coded(NamedTuple, Generic[P]):
    """A packet, in order of decoding, and the times of its frame, microseconds."""

    packet: P
    start_us: int  # presentation time
    end_us: int  # end time of its frame if no other comes
    decode_us: int  # decoding time; no later packet has an earlier presentation time
    key: bool  # whether decoding can begin here
    hidden: bool = False  # whether an edit list hides its frame, which other frames refer to


class Step(NamedTuple, Generic[P]):
    """A packet to decode."""

    coded: Coded[P]
    times: range  # indices of the times that show its frame; empty if it is only referred to
    resets: bool  # whether to reset the decoder first


class IrregularError(Exception):
    """Packets whose times do not determine which frame is on screen at a time."""


def schedule(
    packets: Iterable[Coded[P]], times_us: Sequence[int], last: LastFrame
) -> Iterator[Step[P]]:
    """Yield the packets to decode in order, until they end or each time has its frame.

    No packet is decoded between the last requested frame and the key frame before the next one.

    Args:
      packets: the packets from a key frame on, in order of decoding.
      times_us: the requested times in order, microseconds.
      last: the accumulator to which the packets with shown frames are added.

    Raises:
      IrregularError: the first packet is no key frame or is shown after the first time, or
        packets are decoded after they are shown.

    >>> video = [Coded(None, 40 * n, 40 * n + 40, 40 * n, n % 5 == 0) for n in range(20)]
    >>> steps = schedule(video, [50, 60, 620], LastFrame(stated=True, usual_us=40))
    >>> [(step.coded.start_us, len(step.times)) for step in steps]
    [(0, 0), (40, 2), (600, 1)]
    """
    read = iter(packets)
    undecided: collections.deque[Coded[P]] = collections.deque()
    shown_us: list[int] = []  # presentation times of the packets read, in order
    newest_us, ended = -math.inf, False
    held: list[Coded[P]] = []  # packets whose frames no time shows
    found, first = bytearray(len(times_us)), 0  # first: the earliest time without a frame
    begun, behind = False, False

    while first < len(times_us):
        until_us = None
        while until_us is None:  # Read on until the next frame's start time is known.
            if undecided and undecided[0].hidden:
                break
            if undecided:
                after = bisect.bisect_right(shown_us, undecided[0].start_us)
                later_us = shown_us[after] if after < len(shown_us) else None
                if later_us is not None and (ended or later_us <= newest_us):
                    until_us = later_us
                    break
                if ended:
                    until_us = last.us
                    break
            if (coded := next(read, None)) is None:
                if not undecided:
                    return
                ended = True
                continue
            if not newest_us <= coded.decode_us <= coded.start_us:
                raise IrregularError
            newest_us = coded.decode_us
            if not coded.hidden:
                last.add(coded.start_us, coded.end_us)
                bisect.insort(shown_us, coded.start_us)
                del shown_us[:-_MAX_KNOWN]
            undecided.append(coded)

        coded = undecided.popleft()
        if not begun and not (coded.key and coded.start_us <= times_us[0]):
            raise IrregularError
        begun = True
        if coded.key and held and times_us[first] >= coded.start_us:
            held, behind = [], True  # No time needs a frame before this key frame any more.
        times = range(0)
        if until_us is not None:
            times = range(
                bisect.bisect_left(times_us, coded.start_us), bisect.bisect_left(times_us, until_us)
            )
        held.append(coded)
        if not times and len(held) < _MAX_HELD:
            continue
        for needed in held:
            yield Step(needed, times if needed is coded else range(0), behind)
            behind = False
        held = []
        found[times.start : times.stop] = b"\1" * len(times)
        while first < len(found) and found[first]:
            first += 1
