"""ActivityNet's metric, compared with a version in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation.segment_detection import (
    THRESHOLDS,
    Instances,
    Predictions,
    average_precisions,
)

VIDEOS, CLASSES = 3, 3


def plain_iou(a, b):
    shared = max(min(a[1], b[1]) - max(a[0], b[0]), 0.0)
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return math.nan if union == 0 else shared / union


def plain_average_precision(true, found, threshold):
    """Compute one class: lists of (video, segment) and of (video, segment, score)."""
    ranked = sorted(enumerate(found), key=lambda one: (one[1][2], one[0]), reverse=True)
    taken, right = set(), []
    for _, (video, segment, _) in ranked:
        overlaps = {
            place: plain_iou(segment, one[1]) for place, one in enumerate(true) if one[0] == video
        }
        # Descending; of equal ones the later first. nan, of two segments without length, is none.
        order = sorted(
            ((overlap, place) for place, overlap in overlaps.items() if not math.isnan(overlap)),
            reverse=True,
        )
        choice = None
        for _, place in order:
            if overlaps[place] < threshold:
                break
            if place not in taken:
                choice = place
                break
        if choice is not None:
            taken.add(choice)
        right.append(choice is not None)
    area, recall = 0.0, 0.0
    for n, hit in enumerate(right, 1):
        if hit:
            best = max(sum(right[:m]) / m for m in range(n, len(right) + 1))
            area += (sum(right[:n]) / len(true) - recall) * best
            recall = sum(right[:n]) / len(true)
    return area


times = st.sampled_from([0.0, 1.0, 2.0, 2.5, 4.0, 10.0])
segments = st.tuples(times, times).map(sorted)  # also without length, and often twice the same
labels = st.integers(0, CLASSES - 1)


@settings(max_examples=150)
@given(
    true=st.lists(st.tuples(st.integers(0, VIDEOS - 1), labels, segments), min_size=1, max_size=8),
    found=st.lists(
        st.tuples(st.integers(-1, VIDEOS), labels, segments, st.sampled_from([0.1, 0.5, 0.9])),
        max_size=12,
    ),
)
def test_the_rule_with_ties_duplicates_unknown_videos_and_segments_without_length(true, found):
    of_true = [list(column) for column in zip(*true, strict=True)]
    of_found = [list(column) for column in zip(*found, strict=True)] or [[], [], [], []]
    precisions = average_precisions(
        Instances(np.array(of_true[0]), np.array(of_true[1]), np.array(of_true[2])),
        Predictions(
            np.array(of_found[0], int),
            np.array(of_found[1], int),
            np.array(of_found[2], float).reshape(-1, 2),
            np.array(of_found[3], float),
        ),
        CLASSES,
    )
    for label in range(CLASSES):
        mine = [(video, segment) for video, of, segment in true if of == label]
        theirs = [(video, segment, score) for video, of, segment, score in found if of == label]
        for row, threshold in enumerate(THRESHOLDS):
            expected = plain_average_precision(mine, theirs, threshold) if mine else math.nan
            assert precisions[row, label] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_segments_without_length_or_reversed_are_never_hit():
    segments = np.array([[4.0, 4.0], [9.0, 3.0], [9.0, 3.0]])
    true = Instances(np.array([0, 0, 1]), np.zeros(3, int), segments)
    found = Predictions(*true, np.array([0.9, 0.8, 0.7]))
    assert np.all(average_precisions(true, found, 1) == 0.0)


def test_the_next_best_instance_may_be_taken_if_the_best_is_locked():
    # Both predictions overlap the first instance most; the second one reaches the second as well.
    true = Instances(
        np.zeros(2, int), np.zeros(2, int), np.array([[0.0, 10.0], [1.0, 10.0]])
    )  # fmt: skip
    found = Predictions(
        np.zeros(2, int), np.zeros(2, int), np.array([[0.0, 10.0]] * 2), np.array([0.9, 0.8])
    )
    precisions = average_precisions(true, found, 1)
    assert precisions[:9, 0].tolist() == [1.0] * 9  # 0.5 … 0.9, which 9/10 just reaches
    assert precisions[9, 0] == 0.5
