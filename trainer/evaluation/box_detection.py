"""AVA's metric: mean average precision of boxes at IoU 0.5, as the official script or as SlowFast.

Each class and image is matched separately, one detection after another. A detection is compared
with the true box of its class that it overlaps most. It is correct if their IoU is at least 0.5 and
no earlier detection took that box. Unlike in ActivityNet's rule, there is no second-best match. A
class with boxes and no detection scores 0. A class without boxes is left out of the mean.

The two styles differ in the detections that they evaluate:

| | official | SlowFast |
|---|---|---|
| detections per image | the best 50, over all classes | all |
| their order | descending score | as in the file |
| detections on images that are not annotated | ignored | wrong |
| excluded images | evaluated | left out |

An image is annotated if the file of annotations lists it. This includes images with boxes of other
classes only, and images without people. Detections there are wrong in both styles.

mmaction2 has a third style, which this module does not offer. It takes all detections and leaves
out excluded images and classes without detections. It also ignores detections on images without
true boxes. It scores higher than both.
"""

import dataclasses
import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.evaluation.average_precision import average_precision, descending_order
from trainer.finite import finite

_IOU = 0.5


class Boxes(NamedTuple):
    """The ground truth: n labelled boxes."""

    image: Int[np.ndarray, " n"]  # numbers of keyframes
    label: Int[np.ndarray, " n"]  # numbers of classes
    box: Float[np.ndarray, "n 4"]  # x1, y1, x2, y2 in shares of width and height


class Detections(NamedTuple):
    """The predictions: n scored boxes, in the order of their file."""

    image: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    box: Float[np.ndarray, "n 4"]
    score: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Style:
    """The detections that are evaluated, as in the module's table."""

    at_most: int | None  # maximum number of detections per image; None takes all
    unlabelled: bool  # True counts detections on images that are not annotated
    excluded: bool  # True counts excluded images


STYLES = {
    "official": Style(at_most=50, unlabelled=False, excluded=True),
    "slowfast": Style(at_most=None, unlabelled=True, excluded=False),
}


def box_iou(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Return the intersection over union of each pair of boxes; 0 if both have no area.

    Raises:
      NonFiniteError: a corner is not finite.

    >>> box_iou(np.array([[0.0, 0.0, 0.5, 0.5]]), np.array([[0.25, 0.0, 0.75, 0.5]])).round(3)
    array([[0.333]])
    """
    a, b = finite("boxes", a), finite("boxes", b)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=2)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def average_precisions(
    true: Boxes,
    detected: Detections,
    classes: int,
    style: Style,
    excluded: Int[np.ndarray, " e"],
    annotated: Int[np.ndarray, " a"],
) -> Float[np.ndarray, " classes"]:
    """Return the average precision of each class; nan for a class without true boxes.

    Detections without area are ignored.

    Args:
      true: boxes of the evaluated classes.
      detected: detections of the evaluated classes only. Others would count towards the limit per
        image.
      classes: number of classes.
      style: which detections are evaluated.
      excluded: images that the benchmark excludes.
      annotated: images in the file of annotations; the images of `true` may be omitted.

    Raises:
      NonFiniteError: a score or a corner is not finite.

    >>> true = Boxes(np.array([0]), np.array([1]), np.array([[0.0, 0.0, 0.5, 0.5]]))
    >>> found = Detections(
    ...     np.array([0, 5]), np.array([1, 1]), np.repeat(true.box, 2, axis=0), np.array([0.5, 0.9])
    ... )
    >>> none = np.array([], int)
    >>> average_precisions(true, found, 2, STYLES["official"], none, none).tolist()
    [nan, 1.0]
    >>> average_precisions(true, found, 2, STYLES["slowfast"], none, none).tolist()
    [nan, 0.5]
    """
    finite("boxes of detections", detected.box)
    finite("scores of detections", detected.score)
    finite("true boxes", true.box)
    which = np.ones(len(detected.image), bool)
    if not style.excluded:
        true = Boxes(*(column[~np.isin(true.image, excluded)] for column in true))
        which &= ~np.isin(detected.image, excluded)
    if not style.unlabelled:
        which &= np.isin(detected.image, np.union1d(true.image, annotated))
    listed = _as_listed(detected, np.flatnonzero(which), style.at_most)
    # As in the official script, the limit comes first: the best 50 may include boxes without area.
    has_area = np.all(detected.box[:, :2] < detected.box[:, 2:], axis=1)
    detected = _those(detected, listed[has_area[listed]])

    precisions = np.full(classes, np.nan)
    for label in np.unique(true.label):
        mine, theirs = true.label == label, detected.label == label
        hit = _hits(true.image[mine], true.box[mine], detected.image[theirs], detected.box[theirs])
        ranked = hit[descending_order(detected.score[theirs])]
        precisions[label] = average_precision(ranked, int(np.sum(mine)))
    return precisions


def _those(detected: Detections, which: Int[np.ndarray, " m"]) -> Detections:
    return Detections(*(column[which] for column in detected))


def _as_listed(
    detected: Detections, rows: Int[np.ndarray, " n"], at_most: int | None
) -> Int[np.ndarray, " m"]:
    """Return rows in each script's order: by image, in the order of first occurrence in the file.

    Without a limit, an image's rows keep the order of the file, as in SlowFast. With a limit, they
    have descending scores. Ties are kept and ordered as by the official script's heap.
    """
    image = detected.image[rows]
    if at_most is None:
        _, first, of_row = np.unique(image, return_index=True, return_inverse=True)
        return rows[np.argsort(first[of_row], kind="stable")]
    by_image = np.argsort(image, kind="stable")
    starts = np.flatnonzero(np.diff(image[by_image], prepend=-1))
    of_images = np.split(rows[by_image], starts[1:])
    listed: list[int] = []
    for these in sorted(of_images, key=lambda these: these[:1].tolist()):
        best: list[tuple[float, ...]] = []
        of_image = zip(*(column.tolist() for column in _those(detected, these)), strict=True)
        for row, (_, label, (x1, y1, x2, y2), score) in zip(these.tolist(), of_image, strict=True):
            entry = (score, label, y1, x1, y2, x2, row)
            if len(best) < at_most:
                heapq.heappush(best, entry)
            elif score > best[0][0]:
                heapq.heapreplace(best, entry)
        listed += (int(entry[-1]) for entry in sorted(best, key=lambda entry: -entry[0]))
    return np.array(listed, int)


def _hits(
    true_image: Int[np.ndarray, " g"],
    true_box: Float[np.ndarray, "g 4"],
    image: Int[np.ndarray, " d"],
    box: Float[np.ndarray, "d 4"],
) -> Bool[np.ndarray, " d"]:
    """Return True for the correct detections of one class; earlier ones take a box first."""
    hit = np.zeros(len(image), bool)
    by_image, by_true = np.argsort(image, kind="stable"), np.argsort(true_image, kind="stable")
    for one in np.unique(true_image):
        first, last = np.searchsorted(image[by_image], [one, one + 1])
        rows = by_image[first:last]
        first, last = np.searchsorted(true_image[by_true], [one, one + 1])
        overlap = box_iou(box[rows], true_box[by_true[first:last]])
        enough = np.max(overlap, axis=1) >= _IOU
        _, firsts = np.unique(np.argmax(overlap, axis=1)[enough], return_index=True)
        hit[rows[enough][firsts]] = True
    return hit
