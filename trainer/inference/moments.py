"""Moments of a video that a text describes, from the embeddings of its sliding windows.

Windows are clips of one length, such as 2 s, whose centres are one stride apart, such as 0.5 s.
Each is embedded alone (f^v), so its vector is in the joint space as trained. A window stands for
the part of the video that is nearer to its centre than to any other.

Over time, the cosine of text and window is the moment blurred by a window's length. So it crosses
half of its height where the moment starts and ends. The height is measured from the video's mean
cosine to its highest. A span of parts has as its score the excess of its cosines over half height,
summed over time: a further part raises it if and only if the part is above.

All spans of up to eleven parts are compared, and longer ones in lengths 10 % apart. Non-maximum
suppression removes spans whose IoU with a better one is above 0.5, the threshold of 2D-TAN
(Zhang et al., 2020) for ActivityNet Captions.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.finite import finite

OVERLAP = 0.5  # highest IoU of two spans that are both returned
_GROWTH = 1.1  # ratio of successive lengths


class Moment(NamedTuple):
    """A span of a video, and how well a text describes it."""

    start_us: int
    end_us: int
    score: float  # excess of the cosines over half height, summed over seconds: for one video
    cosine: float  # mean over the span's time: for several videos


def find(
    windows: Float[np.ndarray, "n e"],
    times_us: Int[np.ndarray, "n 2"],
    text: Float[np.ndarray, " e"],
    top: int = 5,
) -> list[Moment]:
    """Return the `top` spans that a text describes best, best first, at least one.

    A span never crosses a time that no window covers. Where all cosines are equal, the longest span
    is the best one.

    Args:
      windows: embeddings of one video's windows, L2-normalized, in any order, one or more.
      times_us: start and end of each window. Those that the video's start or end cut count as being
        as long as the longest.
      text: embedding of the text, L2-normalized.
      top: maximum number of spans.

    Raises:
      NonFiniteError: an embedding is not finite.
      ValueError: there is no window, or `top` is below 1.

    >>> times = 1_000_000 * np.array([[0, 2], [1, 3], [2, 4], [3, 5]])
    >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    >>> (found,) = find(vectors, times, np.array([0.0, 1.0]), top=1)
    >>> found.start_us, found.end_us, round(found.score, 3), found.cosine
    (1500000, 3500000, 0.6, 1.0)
    """
    cosines = finite("embeddings of windows", windows) @ finite("embedding of the text", text)
    return find_by_cosine(cosines, times_us, top)


def find_by_cosine(
    cosines: Float[np.ndarray, " n"],
    times_us: Int[np.ndarray, "n 2"],
    top: int = 5,
    overlap: float = OVERLAP,
) -> list[Moment]:
    """Return the `top` best spans of one video as `find`, from the cosines of text and windows.

    Args:
      cosines: the cosine of each window, one or more.
      times_us: start and end of each window.
      top: maximum number of spans.
      overlap: highest IoU of two spans that are both returned.

    Raises:
      NonFiniteError: a cosine is not finite.
      ValueError: there is no window, or `top` is below 1.
    """
    cosines = finite("cosines of windows and text", cosines)
    if not len(cosines) or top < 1:
        raise ValueError(f"{len(cosines)} windows and {top} spans: give one or more of both")
    rows, edges, run = _parts(times_us)
    cosines = cosines[rows].astype(np.float64)
    lengths = (edges[:, 1] - edges[:, 0]) / 1e6
    threshold = (np.average(cosines, weights=lengths) + np.max(cosines)) / 2
    first, last = _spans(run)

    def total(of_parts: Float[np.ndarray, " n"]) -> Float[np.ndarray, " s"]:
        sums = np.concatenate([[0.0], np.cumsum(of_parts)])
        return sums[last + 1] - sums[first]

    score = total((cosines - threshold) * lengths)
    mean = total(cosines * lengths) / total(lengths)
    spans = np.stack([edges[first, 0], edges[last, 1]], axis=1)
    return [
        Moment(int(spans[one, 0]), int(spans[one, 1]), float(score[one]), float(mean[one]))
        for one in _suppressed(spans, score, top, overlap)
    ]


def _parts(
    times_us: Int[np.ndarray, "n 2"],
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, "p 2"], Int[np.ndarray, " p"]]:
    """Return each part's window, its start and end, and the number of its run without a gap."""
    starts, ends = times_us[:, 0], times_us[:, 1]
    longest = np.max(ends - starts)
    cut = ends - starts < longest
    at_start, at_end = cut & (starts == np.min(starts)), cut & (ends == np.max(ends))
    whole = np.stack(
        [
            np.where(at_start & ~at_end, ends - longest, starts),
            np.where(at_end & ~at_start, starts + longest, ends),
        ],
        axis=1,
    )
    # Twice the centres, as integers. Windows with one centre are one part.
    centres, rows = np.unique(np.sum(whole, axis=1), return_index=True)
    starts, ends = starts[rows], ends[rows]
    apart = starts[1:] > ends[:-1]
    middles = (centres[1:] + centres[:-1]) // 4
    edges = np.stack([starts, ends], axis=1)
    edges[1:, 0] = np.where(apart, starts[1:], middles)
    edges[:-1, 1] = np.where(apart, ends[:-1], middles)
    return rows, edges, np.concatenate([[0], np.cumsum(apart)])


def _spans(run: Int[np.ndarray, " p"]) -> tuple[Int[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """Return the first and last part of each span within a run, the longest spans first.

    >>> [ends.tolist() for ends in _spans(np.array([0, 0, 1]))]
    [[0, 0, 1, 2], [1, 0, 1, 2]]
    """
    lengths, firsts = [1], []
    while lengths[-1] < len(run):
        lengths.append(min(max(lengths[-1] + 1, round(lengths[-1] * _GROWTH)), len(run)))
    for length in reversed(lengths):
        first = np.arange(len(run) - length + 1)
        firsts.append(np.stack([first, first + length - 1]))
    first, last = np.concatenate(firsts, axis=1)
    inside = run[first] == run[last]
    return first[inside], last[inside]


def _suppressed(
    spans: Int[np.ndarray, "s 2"], score: Float[np.ndarray, " s"], top: int, overlap: float
) -> list[int]:
    """Return the rows of at most `top` spans after non-maximum suppression, best first."""
    kept: list[int] = []
    left: Bool[np.ndarray, " s"] = np.ones(len(spans), bool)
    while len(kept) < top and left.any():
        best = int(np.argmax(np.where(left, score, -np.inf)))
        kept.append(best)
        starts, ends = (
            np.maximum(spans[:, 0], spans[best, 0]),
            np.minimum(spans[:, 1], spans[best, 1]),
        )
        shared = np.maximum(ends - starts, 0)
        either = np.diff(spans)[:, 0] + (spans[best, 1] - spans[best, 0]) - shared
        left &= shared <= overlap * either
    return kept
