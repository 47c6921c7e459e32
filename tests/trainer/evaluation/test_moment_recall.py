import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation import moment_recall
from trainer.inference import moments


def segments(longest=8):
    """Draw segments on a grid: spans often touch, coincide or reach a threshold exactly."""
    return st.tuples(st.integers(0, longest - 1), st.integers(1, longest)).map(
        lambda pair: (float(pair[0]), float(min(longest, pair[0] + pair[1])))
    )


queries = st.lists(st.tuples(segments(), st.lists(segments(), max_size=7)), min_size=1, max_size=6)


def iou(one, other):
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / ((one[1] - one[0]) + (other[1] - other[0]) - shared)


@settings(max_examples=60)
@given(queries)
def test_recalls_equal_those_of_one_span_after_another(drawn):
    found = [np.array(spans).reshape(-1, 2) for _, spans in drawn]
    got = moment_recall.recalls(
        moment_recall.overlaps(found, np.array([true for true, _ in drawn]))
    )
    for rank in (1, 5):
        for threshold in (0.3, 0.5, 0.7):
            hits = [
                any(iou(span, true) > threshold for span in spans[:rank]) for true, spans in drawn
            ]
            assert got[f"R@{rank}"][str(threshold)] == pytest.approx(100 * np.mean(hits))
    first = [iou(spans[0], true) if spans else 0.0 for true, spans in drawn]
    assert got["mIoU"] == pytest.approx(100 * np.mean(first))


def test_the_published_evaluator_gives_the_same():
    # lib/core/eval.py of 2D-TAN's authors, with non-maximum suppression at 0.5, on these spans.
    rng, n = np.random.default_rng(0), 200
    start = rng.integers(0, 16, (n, 1))
    true = np.concatenate([start, start + rng.integers(1, 8, (n, 1))], axis=1).astype(float)
    start = rng.integers(0, 16, (n, 6))
    drawn = np.stack([start, start + rng.integers(1, 8, (n, 6))], axis=2)
    kept = [
        spans[moments._suppressed(spans, -np.arange(6.0), 5, moments.OVERLAP)] for spans in drawn
    ]
    assert np.bincount([len(spans) for spans in kept]).tolist() == [0, 0, 0, 13, 36, 151]
    got = moment_recall.recalls(
        moment_recall.overlaps([spans.astype(float) for spans in kept], true)
    )
    assert [*got["R@1"].values()] == pytest.approx([22.5, 13.0, 6.0])
    assert [*got["R@5"].values()] == pytest.approx([65.5, 39.0, 23.0])
    assert got["mIoU"] == pytest.approx(16.062608225108228)


def test_a_segment_without_length_is_never_found():
    found = [np.array([[4.0, 4.0], [3.0, 5.0]])]
    assert not moment_recall.overlaps(found, np.array([[4.0, 4.0]])).any()


def test_the_prior_knows_where_segments_lie():
    duration = np.array([10.0, 40.0, 20.0, 20.0])
    shares = np.array([[0.5, 0.75]] * 3 + [[0.0, 0.1]]) * duration[:, None]
    got = moment_recall.prior(shares, duration)
    assert got["R@1"] == {"0.3": 75, "0.5": 75, "0.7": 75}
    assert got["R@5"]["0.7"] == 100
    assert got["mIoU"] == pytest.approx(75)
    in_seconds = np.array([[4.0, 6.0]] * 4)
    assert moment_recall.prior(in_seconds, duration)["R@1"]["0.7"] == 100


@settings(max_examples=40)
@given(st.lists(segments(), min_size=1, max_size=5), st.data())
def test_no_constant_span_on_the_priors_grid_is_better(drawn, data):
    true, duration = np.array(drawn), np.full(len(drawn), 8.0)
    got = moment_recall.prior(true, duration)
    span = np.array(
        sorted(data.draw(st.lists(st.integers(0, 40), min_size=2, max_size=2, unique=True)))
    )
    constant = moment_recall.recalls(
        moment_recall.overlaps([(span / 40 * 8)[None]] * len(drawn), true)
    )
    for rank in ("R@1", "R@5"):
        for threshold, value in constant["R@1"].items():
            assert got[rank][threshold] >= value - 1e-9
    assert got["mIoU"] >= constant["mIoU"] - 1e-6
