"""From G-TAD's probabilities of a video to its predictions, as its authors' code does it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from trainer.evaluation.segment_files import Found
from trainer.finite import finite

SIGMA = 0.8  # of Soft-NMS on ActivityNet
KEPT = 100  # proposals a video
CLASSES = 2  # that each proposal is predicted of

_HIGH = 0.5  # share of the greatest probability from which a time is a boundary anyway


class Proposals(NamedTuple):
    """Of one video; times are shares of the axis."""

    segment: Float[np.ndarray, "n 2"]
    score: Float[np.ndarray, " n"]


def boundaries(probability: Float[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """Which times are boundaries: greater than both of their neighbours, or than half of the top.

    >>> boundaries(np.array([0.1, 0.3, 0.2, 0.9, 0.5])).tolist()
    [False, True, False, True, True]
    >>> boundaries(np.array([0.1, 0.2, 0.1, 0.3, 0.9])).tolist()
    [False, True, False, False, True]
    """
    probability = finite("probabilities of boundaries", probability)
    peak = np.zeros(len(probability), bool)
    middle = probability[1:-1]
    peak[1:-1] = (middle > probability[:-2]) & (middle > probability[2:])
    return peak | (probability > _HIGH * np.max(probability))


def proposals(
    judged: Float[np.ndarray, "d s 2"], start: Float[np.ndarray, " t"], end: Float[np.ndarray, " t"]
) -> Proposals:
    """All pairs of a start and a later end, scored by the product of the map's two numbers.

    The first time is always a start and the last one an end. An end is a time of the axis, so that
    no proposal reaches the axis' end, 1.0: the authors' code loses those as well.

    Args:
      judged: the network's map.
      start: its starts.
      end: its ends.

    >>> p = proposals(np.full((3, 3, 2), 0.5), np.array([0.9, 0.1, 0.2]), np.array([0.1, 0.2, 0.9]))
    >>> p.segment.round(2).tolist(), p.score.tolist()
    ([[0.0, 0.67]], [0.25])
    """
    judged = finite("probabilities of proposals", judged)
    length = len(start)
    starts, ends = boundaries(start), boundaries(end)
    starts[0] = ends[-1] = True
    first, last = np.nonzero(np.triu(starts[:, None] & ends[None], k=1))
    return Proposals(
        np.stack([first, last], axis=1) / length, np.prod(judged[last - first - 1, first], axis=-1)
    )


def soft_nms(found: Proposals, sigma: float = SIGMA, at_most: int = KEPT) -> Proposals:
    """Gaussian Soft-NMS: the best is kept, and what overlaps it loses by exp(−IoU²/σ).

    It ends when `at_most` are kept, or one is left: that one is lost, as in the authors' code,
    unless it was the only one from the beginning.

    Args:
      found: what is to be thinned out.
      sigma: σ.
      at_most: how many are kept.

    Returns:
      Those that are kept, the best first, with the scores that they had when they were chosen.

    >>> soft_nms(Proposals(np.array([[0.0, 0.5], [0, 0.4], [0.6, 0.9]]), np.array([0.9, 0.8, 0.7])))
    Proposals(segment=array([[0. , 0.5],
           [0.6, 0.9]]), score=array([0.9, 0.7]))
    """
    finite("proposals", found.segment)
    finite("scores of proposals", found.score)
    if len(found.score) < 2:
        return found
    order = np.argsort(-found.score, kind="stable")
    segment, score = found.segment[order], found.score[order].astype(np.float64)
    left = np.ones(len(score), bool)
    kept: list[int] = []
    while np.sum(left) > 1 and len(kept) < at_most:
        best = int(np.argmax(np.where(left, score, -np.inf)))
        left[best] = False
        kept.append(best)
        low = np.maximum(segment[:, 0], segment[best, 0])
        high = np.minimum(segment[:, 1], segment[best, 1])
        hull = np.maximum(segment[:, 1], segment[best, 1]) - np.minimum(
            segment[:, 0], segment[best, 0]
        )
        # Of segments that overlap, the hull is the union.
        iou = np.maximum(high - low, 0.0) / hull
        score = np.where(left, score * np.exp(-np.square(iou) / sigma), score)
    return Proposals(segment[kept], score[kept])


def predictions(
    kept: Proposals,
    seconds: float,
    class_scores: Float[np.ndarray, "n classes"],
    classes: Sequence[str],
) -> list[Found]:
    """Each proposal as each of its two most likely classes, scored by the product.

    Args:
      kept: of a video.
      seconds: what the axis covers: duration · feature_frame / duration_frame.
      class_scores: of each proposal: the whole video's, or its own.
      classes: their names.

    >>> kept = Proposals(np.array([[0.25, 0.5]]), np.array([0.5]))
    >>> for one in predictions(kept, 8.0, np.array([[0.1, 0.6, 0.3]]), ["jump", "run", "sit"]):
    ...     print(one)
    Found(label='run', score=0.3, start=2.0, end=4.0)
    Found(label='sit', score=0.15, start=2.0, end=4.0)
    """
    finite("proposals", kept.segment)
    finite("scores of proposals", kept.score)
    class_scores = finite("class scores", class_scores)
    likely = np.argsort(-class_scores, axis=1, kind="stable")[:, :CLASSES]
    return [
        Found(
            classes[int(label)],
            float(kept.score[row] * class_scores[row, label]),
            float(kept.segment[row, 0] * seconds),
            float(kept.segment[row, 1] * seconds),
        )
        for row in range(len(kept.score))
        for label in likely[row]
    ]
