"""AVA's metric: mean average precision of boxes at IoU 0.5, as the official script or as SlowFast.

Of each class, an image's detections are gone through one after another. Each looks at
the one box of its class that it overlaps most: it is right if their IoU reaches 0.5 and no
detection took that box before. There is no next best, unlike in ActivityNet's rule. A class that
has boxes and no detection scores 0, one without boxes is left out of the mean.

The two differ in what is gone through:

| | official | SlowFast |
|---|---|---|
| detections an image | the best 50, over all classes | all |
| their order | from the best to the worst | as in the file |
| detections on images that are not annotated | ignored | wrong |
| excluded images | judged | left out |

An image is annotated if the file of annotations has it at all: with a box of a class that is not
evaluated, or with nobody in it. Detections there are wrong by both.

mmaction2's third way takes all detections, leaves excluded images out, ignores those on images
without true boxes, and leaves out classes without detections: it scores higher than both, and is
not offered.
"""

import dataclasses
import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.evaluation.average_precision import average_precision, best_first
from trainer.finite import finite

_IOU = 0.5


class Boxes(NamedTuple):
    """What is true: n labelled boxes."""

    image: Int[np.ndarray, " n"]  # numbers of keyframes
    label: Int[np.ndarray, " n"]  # numbers of classes
    box: Float[np.ndarray, "n 4"]  # x1, y1, x2, y2 in shares of width and height


class Detections(NamedTuple):
    """What is said to be true: n scored boxes, in the order of their file."""

    image: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    box: Float[np.ndarray, "n 4"]
    score: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Style:
    """What is gone through, as the module says."""

    at_most: int | None  # detections an image; None: all
    unlabelled: bool  # whether images that are not annotated count
    excluded: bool  # whether excluded images count


STYLES = {
    "official": Style(at_most=50, unlabelled=False, excluded=True),
    "slowfast": Style(at_most=None, unlabelled=True, excluded=False),
}


def box_iou(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of each two boxes; 0 where both have no area.

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
    """The average precision of each class; nan for a class without true boxes.

    Boxes without area are no detections.

    Args:
      true: boxes of the classes that are evaluated.
      detected: detections of those classes: others must not take the place of some.
      classes: how many there are.
      style: what is gone through.
      excluded: images that the benchmark excludes.
      annotated: images that the file of annotations has; those of `true` are, and need not be here.

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
    # After the best were taken, as in the official script: one without area may be among them.
    has_area = np.all(detected.box[:, :2] < detected.box[:, 2:], axis=1)
    detected = _those(detected, listed[has_area[listed]])

    precisions = np.full(classes, np.nan)
    for label in np.unique(true.label):
        mine, theirs = true.label == label, detected.label == label
        hit = _hits(true.image[mine], true.box[mine], detected.image[theirs], detected.box[theirs])
        ranked = hit[best_first(detected.score[theirs])]
        precisions[label] = average_precision(ranked, int(np.sum(mine)))
    return precisions


def _those(detected: Detections, which: Int[np.ndarray, " m"]) -> Detections:
    return Detections(*(column[which] for column in detected))


def _as_listed(
    detected: Detections, rows: Int[np.ndarray, " n"], at_most: int | None
) -> Int[np.ndarray, " m"]:
    """Some rows as each script lists them: by image, as the file first has it.

    An image's rows are then as in the file, which is SlowFast's order; or, with a limit, the best
    first, and of equal ones those that the official script's heap keeps, in its order.
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
    """Which detections of one class are right; of an image's the earlier takes a box first."""
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
