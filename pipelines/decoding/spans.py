"""Inputs and outputs of the decoders: spans, limits, frames and failures.

All times count from the beginning of the file. Frame i of a span of T frames is the one on screen
at start + (i + 0.5)·(end − start)/T. That is the frame with the maximum presentation time, in
whole microseconds, that is not after it. So variable frame rates are handled correctly.
"""

import dataclasses
import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipelines.decoding.video_file import Failure

TO_THE_END = 0  # as a span's end: the end of its video, which decoding finds
WIDEST = 16  # maximum ratio of the longer to the shorter side
LENGTH_SLACK_US = 100_000  # tolerance between a file's stated length and its packets' length

_OPEN_SPANS = 16  # maximum spans held at once: about 11 MB per span at 256 pixels, 16:9


class Frames(NamedTuple):
    """A span's frames."""

    pixels: np.ndarray  # uint8 [T, height, width, 3], RGB
    times_us: list[int]  # [T]
    end_us: int  # end of the span, or of the video if that comes first


@dataclasses.dataclass(frozen=True)
class Limits:
    """Resource limits of one child process."""

    seconds: float = 120.0  # wall-clock time
    memory: int = 4 << 30  # bytes of address space
    pixels: int = 8192 * 4320  # maximum pixels of a frame in the file
    confined: bool = False  # whether to decode nothing if a layer of the sandbox is missing


LIMITS = Limits()


def frame_times_us(start_us: int, end_us: int, frames: int) -> list[int]:
    """Return the middles of `frames` equal parts of a span, rounded down to microseconds.

    >>> frame_times_us(1_000_000, 2_000_000, 4)
    [1125000, 1375000, 1625000, 1875000]
    """
    length = end_us - start_us
    return [start_us + (2 * i + 1) * length // (2 * frames) for i in range(frames)]


def passes(spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Group spans by pass over the file, as indices into `spans` in order of start.

    At most 16 spans of a pass overlap at any time, which bounds the memory for frames.

    >>> passes([(60_000_000, 70_000_000), (0, 10_000_000)])
    [[1, 0]]
    """
    groups: list[list[int]] = []
    left = sorted(range(len(spans)), key=lambda i: spans[i])
    while left:
        taken, later, ends_us = [], [], []
        for i in left:
            start_us, end_us = spans[i]
            while ends_us and ends_us[0] <= start_us:
                heapq.heappop(ends_us)
            if len(ends_us) == _OPEN_SPANS:
                later.append(i)
            else:
                heapq.heappush(ends_us, end_us)
                taken.append(i)
        groups.append(taken)
        left = later
    return groups


def no_frames(found: int, times_us: Sequence[int], stated_us: float | None) -> Failure:
    """Return the failure of a span with missing frames: past the end, or a truncated file.

    Args:
      found: number of decoded frames.
      times_us: times of all requested frames, microseconds.
      stated_us: the length that the file states, microseconds; None if it states none.
    """
    counted = f"{found} of {len(times_us)} frames"
    if stated_us is None:
        return Failure("span_past_end", counted)
    if times_us[-1] < stated_us:
        return Failure(
            "video_truncated", f"{counted} of a file that states a length of {stated_us / 1e6:g} s"
        )
    return Failure("span_past_end", f"{counted}; the file ends at {stated_us / 1e6:g} s")


def too_large(width: int, height: int, limits: Limits) -> Failure:
    """Return the failure of a video whose frames exceed the maximum number of pixels."""
    return Failure(
        "decode_limit", f"frames of {width}x{height} where {limits.pixels:,} pixels are allowed"
    )
