"""The conversion of G-TAD's probabilities into predictions, as in its authors' code."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from trainer.evaluation.segment_files import Found
from trainer.finite import finite

SIGMA = 0.8  # σ of Soft-NMS on ActivityNet
KEPT = 100  # maximum number of proposals per video
CLASSES = 2  # predicted classes per proposal

_HIGH = 0.5  # share of the maximum probability above which a time is always a boundary


class Proposals(NamedTuple):
    """The proposals of one video, with times as shares of the axis."""

    segment: Float[np.ndarray, "n 2"]
    score: Float[np.ndarray, " n"]


def boundaries(probability: Float[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """Return True for times that exceed both their neighbours, or half of the maximum.

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
    """Return all pairs of a start and a later end, scored by the product of the map's two values.

    The first time is always a start and the last one an end. An end is a time of the axis, so that
    no proposal reaches the end of the axis, 1.0. The authors' code loses those as well.

    Args:
      judged: map of the network's probabilities.
      start: the network's probabilities of a start.
      end: the network's probabilities of an end.

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
    """Apply Gaussian Soft-NMS: keep the best proposal, multiply the other scores by exp(−IoU²/σ).

    It stops when `at_most` proposals are kept, or when one remains. As in the authors' code, that
    last one is lost, unless it was the only proposal of the input.

    Args:
      found: proposals to filter.
      sigma: σ.
      at_most: maximum number of proposals to keep.

    Returns:
      The kept proposals, the best first, with their scores at the time of selection.

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
        # The union of overlapping segments equals their hull.
        iou = np.maximum(high - low, 0.0) / hull
        score = np.where(left, score * np.exp(-np.square(iou) / sigma), score)
    return Proposals(segment[kept], score[kept])


def predictions(
    kept: Proposals,
    seconds: float,
    class_scores: Float[np.ndarray, "n classes"],
    classes: Sequence[str],
) -> list[Found]:
    """Predict the two most likely classes of each proposal, scored by the product of both scores.

    Args:
      kept: proposals of a video.
      seconds: length of the axis: duration · feature_frame / duration_frame.
      class_scores: class scores of each proposal: the whole video's, or its own.
      classes: names of the classes.

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
