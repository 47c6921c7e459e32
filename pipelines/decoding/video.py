"""A video's spans to frames, whichever decoder does it.

Videos are untrusted. A decoder's child may open one local file as one of a few containers (a
playlist named .mp4 would open others), and has limits on time, memory, pixels and output.
"""

from collections.abc import Iterator, Sequence

from pipelines.decoding import with_ffmpeg, with_pyav
from pipelines.decoding.spans import LIMITS, TO_THE_END, Frames, Limits
from pipelines.decoding.video_file import Failure

DECODERS = {"pyav": with_pyav, "ffmpeg": with_ffmpeg}

_FRAMES_END = ("span_past_end", "video_truncated")  # if sound goes on, they look the same at first


def decode(
    path: str,
    spans: Sequence[tuple[int, int]],
    *,
    least_us: Sequence[int] = (),
    frames: int,
    short_side: int,
    decoder: str,
    limits: Limits = LIMITS,
) -> Iterator[tuple[int, Frames | Failure]]:
    """Decodes spans of one video.

    A span whose last frame time is past the end of the video is cut there, if enough is left.

    Args:
      path: a regular file, absolute.
      spans: [start, end) each, microseconds from the beginning of the file; the end may be
        TO_THE_END, and the file must then be as long as it states, also for the other spans.
      least_us: what must be left of each span, microseconds above 0; empty: the whole.
      frames: T, frames a span.
      short_side: pixels, after rotation and pixel aspect were applied.
      decoder: a name of DECODERS.
      limits: of each child.

    Yields:
      Every index into `spans` once, with its frames or the reason why there are none.
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
        may_be_cut = bool(least_us) and least_us[i] < spans[i][1] - spans[i][0]
        if may_be_cut and isinstance(found, Failure) and found.reason in _FRAMES_END:
            late[i] = found
        else:
            yield i, found
    if not late:
        return
    end_us = by.end_us(path, min(spans[i][0] for i in late), limits)
    cut = [i for i in late if end_us < spans[i][1] and end_us - spans[i][0] >= least_us[i]]
    ends = [(spans[i][0], end_us) for i in cut]
    for j, found in by.decode(path, ends, frames, short_side, limits) if cut else ():
        yield cut[j], found
    for i, failure in late.items():
        if i not in cut:
            known = 0 < end_us < spans[i][1]
            told = f"the video ends at {end_us / 1e6:g} s"
            yield i, Failure("span_past_end", told) if known else failure


def _no_end(path: str, short_side: int, decoder: str, limits: Limits) -> Failure:
    """Why a file's end cannot be told: why its first frame is not there, or that it breaks off."""
    for _, found in DECODERS[decoder].decode(path, [(0, 1)], 1, short_side, limits):
        if isinstance(found, Failure):
            return found
    return Failure("video_truncated", "the file is not as long as it states")
