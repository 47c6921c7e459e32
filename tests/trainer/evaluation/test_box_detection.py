"""AVA's metric, compared with a version in plain loops."""

import heapq
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation.box_detection import STYLES, Boxes, Detections, average_precisions

IMAGES, CLASSES = 4, 3


def plain_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def plain(true, found, label, at_most, unlabelled, excluded, annotated):
    """Lists of (image, label, box) and of (image, label, box, score)."""
    true = [one for one in true if one[0] not in excluded]
    found = [one for one in found if one[0] not in excluded]
    if not unlabelled:
        known = annotated | {image for image, *_ in true}
        found = [one for one in found if one[0] in known]
    by_image = {}
    for image, of, box, score in found:
        kept = by_image.setdefault(image, [])
        entry = (score, of, box[1], box[0], box[3], box[2])
        if at_most is None:
            kept.append(entry)
        elif len(kept) < at_most:
            heapq.heappush(kept, entry)
        elif score > kept[0][0]:
            heapq.heapreplace(kept, entry)
    positives = sum(one[1] == label for one in true)
    if not positives:
        return math.nan
    judged = []
    for image, kept in by_image.items():
        boxes, taken = [box for at, of, box in true if (at, of) == (image, label)], set()
        # SlowFast hands an image's detections on as its file has them.
        listed = kept if at_most is None else sorted(kept, key=lambda entry: -entry[0])
        for score, of, y1, x1, y2, x2 in listed:
            if of != label or x1 >= x2 or y1 >= y2:
                continue
            overlaps = [plain_iou((x1, y1, x2, y2), box) for box in boxes]
            best = overlaps.index(max(overlaps)) if overlaps else None
            right = best is not None and overlaps[best] >= 0.5 and best not in taken
            if right:
                taken.add(best)
            judged.append((score, len(judged), right))
    right = [hit for *_, hit in sorted(judged, reverse=True)]
    area, recall = 0.0, 0.0
    for n, hit in enumerate(right, 1):
        if hit:
            best = max(sum(right[:m]) / m for m in range(n, len(right) + 1))
            area += (sum(right[:n]) / positives - recall) * best
            recall = sum(right[:n]) / positives
    return area


places = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
boxes = st.tuples(places, places, places, places).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
images, labels = st.integers(0, IMAGES - 1), st.integers(0, CLASSES - 1)


@settings(max_examples=150)
@given(
    true=st.lists(st.tuples(images, labels, boxes), min_size=1, max_size=8),
    found=st.lists(st.tuples(images, labels, boxes, st.sampled_from([0.1, 0.5, 0.9])), max_size=14),
    excluded=st.sets(images, max_size=2),
    annotated=st.sets(images, max_size=2),
    at_most=st.sampled_from([3, 50]),
)
def test_both_styles_with_ties_empty_classes_and_images_without_truth(
    true, found, excluded, annotated, at_most
):
    of_true = [np.array(column) for column in zip(*true, strict=True)]
    columns = list(zip(*found, strict=True)) or [[], [], [], []]
    of_found = Detections(
        np.array(columns[0], int),
        np.array(columns[1], int),
        np.array(columns[2], float).reshape(-1, 4),
        np.array(columns[3], float),
    )
    for style in STYLES.values():
        if style.at_most:
            style = type(style)(at_most, style.unlabelled, style.excluded)
        precisions = average_precisions(
            Boxes(*of_true),
            of_found,
            CLASSES,
            style,
            np.array(sorted(excluded), int),
            np.array(sorted(annotated), int),
        )
        for label in range(CLASSES):
            left_out = set() if style.excluded else excluded
            expected = plain(
                true, found, label, style.at_most, style.unlabelled, left_out, annotated
            )
            assert precisions[label] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_as_slowfast_the_first_of_the_file_takes_the_box_and_not_the_best():
    box, none = np.array([[0.0, 0.0, 0.5, 0.5]]), np.array([], int)
    true = Boxes(np.zeros(1, int), np.zeros(1, int), box)
    twice = Detections(
        np.zeros(2, int), np.zeros(2, int), np.repeat(box, 2, axis=0), np.array([0.2, 0.9])
    )
    better_first = twice._replace(score=twice.score[::-1])
    of_style = {
        name: [
            average_precisions(true, found, 1, style, none, none).tolist()
            for found in (twice, better_first)
        ]
        for name, style in STYLES.items()
    }
    assert of_style == {"official": [[1.0], [1.0]], "slowfast": [[0.5], [1.0]]}


def test_a_box_that_is_taken_leaves_no_next_best():
    box = [0.0, 0.0, 1.0, 1.0]
    true = Boxes(np.zeros(2, int), np.zeros(2, int), np.array([box, [0.0, 0.0, 0.9, 1.0]]))
    found = Detections(np.zeros(2, int), np.zeros(2, int), np.array([box] * 2), np.ones(2))
    none = np.array([], int)
    precisions = average_precisions(true, found, 1, STYLES["official"], none, none)
    # One of two is found; of equal scores the later stands first, and the first one was right.
    assert precisions.tolist() == [0.25]
