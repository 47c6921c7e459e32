"""Temporal localisation's metric: mean average precision by ActivityNet's official rule.

Predictions of each class are matched in descending order of score. A prediction takes the free
instance of its video and class with the highest temporal IoU, if this reaches the threshold. It may
thus take the second best, unlike in AVA's rule. A prediction without a match is wrong, also if its
video has no instance or is unknown. A class without predictions scores 0. The mean is over all
classes that have an instance.

Two details match the official script exactly. An instance that occurs twice counts twice. Of
equally overlapping instances the later is taken first. One detail differs. An instance and a
prediction without length have an IoU of 0 / 0. This passes every threshold of the official script,
wherever the two lie, and none here. Only ActivityNet's three instances without length can differ.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.evaluation.average_precision import average_precision, descending_order
from trainer.finite import finite

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The thresholds of temporal IoU; average mAP is the mean over them."""


class Instances(NamedTuple):
    """The ground truth: n labelled segments."""

    video: Int[np.ndarray, " n"]  # numbers of videos
    label: Int[np.ndarray, " n"]  # numbers of classes
    segment: Float[np.ndarray, "n 2"]  # start and end in seconds


class Predictions(NamedTuple):
    """The predicted segments: n scored segments, in the order of their file."""

    video: Int[np.ndarray, " n"]  # as in `Instances`; any other number is an unknown video
    label: Int[np.ndarray, " n"]
    segment: Float[np.ndarray, "n 2"]
    score: Float[np.ndarray, " n"]


def temporal_iou(
    predicted: Float[np.ndarray, "p 2"], true: Float[np.ndarray, "g 2"]
) -> Float[np.ndarray, "p g"]:
    """Return the intersection over union of each pair of segments; nan if both have no length.

    Raises:
      NonFiniteError: a time is not finite.

    >>> temporal_iou(np.array([[0.0, 4.0]]), np.array([[2.0, 6.0], [5.0, 9.0]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    p, g = finite("segments", predicted)[:, None], finite("true segments", true)[None]
    shared = np.maximum(np.minimum(p[..., 1], g[..., 1]) - np.maximum(p[..., 0], g[..., 0]), 0.0)
    lengths = (p[..., 1] - p[..., 0]) + (g[..., 1] - g[..., 0])
    with np.errstate(invalid="ignore"):
        return shared / (lengths - shared)


def average_precisions(
    true: Instances,
    predicted: Predictions,
    classes: int,
    thresholds: Float[np.ndarray, " t"] = THRESHOLDS,
) -> Float[np.ndarray, "t classes"]:
    """Return the average precision per threshold and class; nan for a class without instances.

    Raises:
      NonFiniteError: a score, a time or a threshold is not finite.

    >>> true = Instances(np.array([0, 0]), np.array([0, 0]), np.array([[0.0, 4.0], [5.0, 9.0]]))
    >>> found = Predictions(
    ...     np.array([0, 7]), np.array([0, 0]), np.array([[0.0, 3.0], [5, 9]]), np.array([0.4, 0.9])
    ... )
    >>> average_precisions(true, found, 2, np.array([0.5, 0.95])).tolist()
    [[0.25, nan], [0.0, nan]]
    """
    finite("segments", predicted.segment)
    finite("true segments", true.segment)
    finite("thresholds", thresholds)
    order = descending_order(predicted.score)
    predicted = Predictions(*(column[order] for column in predicted))
    precisions = np.full((len(thresholds), classes), np.nan)
    for label in np.unique(true.label):
        mine, theirs = true.label == label, predicted.label == label
        hit = _hits(
            true.video[mine],
            true.segment[mine],
            predicted.video[theirs],
            predicted.segment[theirs],
            thresholds,
        )
        precisions[:, label] = [average_precision(row, int(np.sum(mine))) for row in hit]
    return precisions


def _hits(
    true_video: Int[np.ndarray, " g"],
    true_segment: Float[np.ndarray, "g 2"],
    video: Int[np.ndarray, " p"],
    segment: Float[np.ndarray, "p 2"],
    thresholds: Float[np.ndarray, " t"],
) -> Bool[np.ndarray, "t p"]:
    """Return True per threshold for correct predictions of one class, ordered by score."""
    hit = np.zeros((len(thresholds), len(video)), bool)
    by_video = np.argsort(video, kind="stable")
    videos = np.unique(true_video)
    first = np.searchsorted(video[by_video], videos, side="left")
    last = np.searchsorted(video[by_video], videos, side="right")
    for one, start, stop in zip(videos, first, last, strict=True):
        rows = by_video[start:stop]
        overlap = temporal_iou(segment[rows], true_segment[true_video == one])
        wanted = np.argsort(overlap, axis=1, kind="stable")[:, ::-1]
        for place, threshold in enumerate(thresholds):
            enough = overlap >= threshold  # False for nan
            free = set(range(overlap.shape[1]))
            for row in np.flatnonzero(np.any(enough, axis=1)):
                taken = next(
                    (g for g in wanted[row].tolist() if g in free and enough[row, g]), None
                )
                if taken is not None:
                    hit[place, rows[row]] = True
                    free.remove(taken)
                    if not free:
                        break
    return hit
