"""Decoding of a video's spans to frames, by any of the decoders.

Videos are untrusted. A decoder's child process may open one local file. Only a few containers are
allowed, because a playlist named .mp4 would open other files. The child's time, memory, pixels and
output are limited.
"""

from collections.abc import Iterator, Sequence

from pipelines.decoding import with_ffmpeg, with_pyav
from pipelines.decoding.spans import LIMITS, TO_THE_END, Frames, Limits
from pipelines.decoding.video_file import Failure

DECODERS = {"pyav": with_pyav, "ffmpeg": with_ffmpeg}

# Reasons for missing frames at the end. They look the same at first if audio outlasts the picture.
_FRAMES_END = ("span_past_end", "video_truncated")


def decode(
    path: str,
    spans: Sequence[tuple[int, int]],
    *,
    min_us: Sequence[int] = (),
    frames: int,
    short_side: int,
    decoder: str,
    limits: Limits = LIMITS,
) -> Iterator[tuple[int, Frames | Failure]]:
    """Decode spans of one video.

    A span whose last frame time is past the end of the video is cut there, if enough remains.

    Args:
      path: absolute path of a regular file.
      spans: [start, end) each, microseconds from the beginning of the file. The end may be
        TO_THE_END, and the file must then be as long as it states, also for the other spans.
      min_us: minimum remaining length of each span, microseconds above 0. If empty, no span
        is cut.
      frames: T, frames per span.
      short_side: pixels, after rotation and pixel aspect were applied.
      decoder: a key of DECODERS.
      limits: limits of each child process.

    Yields:
      Every index into `spans` once, with its frames or its failure.
    """
    by = DECODERS[decoder]
    if any(end_us == TO_THE_END for _, end_us in spans):
        video_us = by.end_us(path, 0, limits)
        if not video_us:
            failure = _no_end(path, short_side, decoder, limits)
            yield from ((i, failure) for i in range(len(spans)))
            return
        spans = [(start, video_us if end == TO_THE_END else end) for start, end in spans]
    late: dict[int, Failure] = {}
    for i, found in by.decode(path, spans, frames, short_side, limits):
        may_be_cut = bool(min_us) and min_us[i] < spans[i][1] - spans[i][0]
        if may_be_cut and isinstance(found, Failure) and found.reason in _FRAMES_END:
            late[i] = found
        else:
            yield i, found
    if not late:
        return
    end_us = by.end_us(path, min(spans[i][0] for i in late), limits)
    cut = [i for i in late if end_us < spans[i][1] and end_us - spans[i][0] >= min_us[i]]
    ends = [(spans[i][0], end_us) for i in cut]
    for j, found in by.decode(path, ends, frames, short_side, limits) if cut else ():
        yield cut[j], found
    for i, failure in late.items():
        if i not in cut:
            known = 0 < end_us < spans[i][1]
            message = f"the video ends at {end_us / 1e6:g} s"
            yield i, Failure("span_past_end", message) if known else failure


def _no_end(path: str, short_side: int, decoder: str, limits: Limits) -> Failure:
    """Return why a file's end is unknown: its first frame's failure, or that it is truncated."""
    for _, found in DECODERS[decoder].decode(path, [(0, 1)], 1, short_side, limits):
        if isinstance(found, Failure):
            return found
    return Failure("video_truncated", "the file is not as long as it states")
