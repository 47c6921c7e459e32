"""Moment retrieval's metrics: R@n at a temporal IoU, and mIoU, by 2D-TAN's protocol.

A text describes one segment of a video. R@n, IoU = m is the percentage of texts for which one of
the first n predicted spans has an IoU above m with the segment: above, not equal. mIoU is the mean
IoU of the first span. 2D-TAN (Zhang et al., 2020) ranks the spans after non-maximum suppression at
an IoU of 0.5, so no two of the first five overlap further. A file of predictions is scored as it
stands: whoever made it has suppressed spans.

Sources: Krishna et al., 2017 (ActivityNet Captions); Gao et al., 2017 (TALL: R@n, IoU = m);
lib/core/eval.py of 2D-TAN's authors.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float

from trainer.evaluation.segment_detection import temporal_iou
from trainer.finite import finite

THRESHOLDS = (0.3, 0.5, 0.7)
RANKS = (1, 5)
_STEPS = 40  # The prior's spans start and end at multiples of 1 / _STEPS of the longest video.
_AT_ONCE = 1024  # queries whose overlaps with all spans of the prior are in memory


# Percentages of queries; those of R@1 and R@5 by threshold, "0.3" … "0.7".
Recalls = TypedDict("Recalls", {"R@1": dict[str, float], "R@5": dict[str, float], "mIoU": float})


def overlaps(
    found: Sequence[Float[np.ndarray, "_ 2"]], true: Float[np.ndarray, "q 2"]
) -> Float[np.ndarray, "q 5"]:
    """Return the IoU of each query's first spans with its segment, 0 for spans that are missing.

    Args:
      found: the spans of each query, in seconds, best first.
      true: the queries' segments. One without length is never found.

    Raises:
      NonFiniteError: a time is not finite.

    >>> overlaps([np.array([[0.0, 4.0]])], np.array([[0.0, 8.0]])).tolist()
    [[0.5, 0.0, 0.0, 0.0, 0.0]]
    """
    first = np.zeros((len(true), max(RANKS)))
    for row, (spans, segment) in enumerate(zip(found, true, strict=True)):
        best = temporal_iou(spans[: max(RANKS)], segment[None])[:, 0]
        first[row, : len(best)] = np.nan_to_num(best)  # nan: neither has a length
    return first


def recalls(overlap: Float[np.ndarray, "q 5"]) -> Recalls:
    """Return the metrics of overlaps, as `overlaps` returns them.

    Raises:
      NonFiniteError: an overlap is not finite.

    >>> recalls(np.array([[0.5, 0.6, 0.0, 0.0, 0.0]]))
    {'R@1': {'0.3': 100.0, '0.5': 0.0, '0.7': 0.0}, \
'R@5': {'0.3': 100.0, '0.5': 100.0, '0.7': 0.0}, 'mIoU': 50.0}
    """
    overlap = finite("overlaps", overlap)

    def at(rank: int) -> dict[str, float]:
        best = np.max(overlap[:, :rank], axis=1)
        return {str(one): 100.0 * float(np.mean(best > one)) for one in THRESHOLDS}

    return {"R@1": at(1), "R@5": at(5), "mIoU": 100.0 * float(np.mean(overlap[:, 0]))}


def prior(true: Float[np.ndarray, "q 2"], duration: Float[np.ndarray, " q"]) -> Recalls:
    """Return the metrics of the best spans that are the same for each video and text.

    They show how much the data set's own bias gives. A span is fixed as shares of the duration or
    in seconds. Each metric has the span that is best for it on this very test set, and R@5 the
    five that are added one after the other: an upper bound of such baselines.

    Args:
      true: the queries' segments in seconds.
      duration: the durations of their videos in seconds.

    Raises:
      NonFiniteError: a time is not finite.

    >>> prior(np.array([[0.0, 2.0], [0.0, 4.0]]), np.array([8.0, 16.0]))["R@1"]["0.7"]
    100.0
    """
    true, duration = finite("true segments", true), finite("durations", duration)
    total, hits = [], {one: [] for one in THRESHOLDS}
    for start in range(0, len(true), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        overlap = _of_fixed_spans(true[some], duration[some], float(np.max(duration)))
        total.append(np.sum(overlap, axis=1))
        for one in THRESHOLDS:
            hits[one].append(overlap > one)
    found = {one: _greedy(np.concatenate(parts, axis=1)) for one, parts in hits.items()}
    return {
        "R@1": {str(one): shares[0] for one, shares in found.items()},
        "R@5": {str(one): shares[-1] for one, shares in found.items()},
        "mIoU": 100.0 * float(np.max(np.sum(total, axis=0))) / len(true),
    }


def _of_fixed_spans(
    true: Float[np.ndarray, "q 2"], duration: Float[np.ndarray, " q"], longest: float
) -> Float[np.ndarray, "c q"]:
    """Return the IoU of each fixed span with each segment; spans end with their video."""
    grid = np.arange(_STEPS + 1) / _STEPS
    starts, ends = (grid[one][:, None, None] for one in np.triu_indices(_STEPS + 1, 1))
    units = np.stack([duration, np.full_like(duration, longest)])  # shares, then seconds
    start, end = (np.minimum(one * units, duration) for one in (starts, ends))
    shared = np.maximum(np.minimum(end, true[:, 1]) - np.maximum(start, true[:, 0]), 0.0)
    union = (end - start) + (true[:, 1] - true[:, 0]) - shared
    return (shared / np.maximum(union, 1e-9)).reshape(-1, len(true))


def _greedy(hit: Bool[np.ndarray, "c q"]) -> list[float]:
    """Return the percentage of queries hit by the best span, by it and another, … by five."""
    left, shares = np.ones(hit.shape[1], bool), []
    for _ in range(max(RANKS)):
        left &= ~hit[np.argmax(np.sum(hit & left, axis=1))]
        shares.append(100.0 * float(np.mean(~left)))
    return shares
