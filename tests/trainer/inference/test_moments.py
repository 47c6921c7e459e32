import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.inference import moments

STRIDE_US = 500_000
TEXT = np.array([1.0, 0.0])


def vectors(cosines):
    """Return unit vectors with these cosines to TEXT."""
    cosines = np.asarray(cosines, float)
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)


def sliding(count, window_us=1_000_000):
    """Return the windows of a video of `count` strides, cut where it begins and ends."""
    middles = STRIDE_US // 2 + STRIDE_US * np.arange(count)
    spans = np.stack([middles - window_us // 2, middles + window_us // 2], axis=1)
    return np.clip(spans, 0, count * STRIDE_US)


# Three windows of 1 s and more, of which one at least is not cut.
cosines = st.lists(st.floats(-1, 1), min_size=3, max_size=14)


@settings(max_examples=60)
@given(cosines, st.integers(1, 6))
def test_spans_equal_those_of_plain_loops(drawn, top):
    times = sliding(len(drawn))
    got = moments.find(vectors(drawn), times, TEXT, top)
    threshold = (np.mean(drawn) + max(drawn)) / 2
    lengths = [length for length in range(1, len(drawn) + 1) if length < 12 or length in (13, 14)]
    excess = {
        (first, first + length): 0.5 * sum(one - threshold for one in drawn[first : first + length])
        for length in lengths
        for first in range(len(drawn) - length + 1)
    }
    kept = []
    for one in got:
        span = (one.start_us // STRIDE_US, one.end_us // STRIDE_US)
        free = [
            other
            for other in excess
            if all(overlap(other, before) <= moments.OVERLAP for before in kept)
        ]
        assert span in free
        assert one.score == pytest.approx(max(excess[other] for other in free), abs=1e-6)
        assert one.cosine == pytest.approx(np.mean(drawn[slice(*span)]), abs=1e-6)
        kept.append(span)
    left = [one for one in excess if all(overlap(one, two) <= moments.OVERLAP for two in kept)]
    assert len(kept) == top or not left


def overlap(one, other):
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / ((one[1] - one[0]) + (other[1] - other[0]) - shared)


@settings(max_examples=60)
@given(cosines, st.randoms())
def test_the_order_of_windows_changes_nothing(drawn, random):
    order = list(range(len(drawn)))
    random.shuffle(order)
    times, windows = sliding(len(drawn)), vectors(drawn)
    assert moments.find(windows[order], times[order], TEXT) == moments.find(windows, times, TEXT)


def test_a_moment_that_windows_blur_is_found_with_its_edges():
    true, count = (4_000_000, 8_000_000), 40  # in a video of 20 s
    times = sliding(count, window_us=2_000_000)
    shared = np.minimum(times[:, 1], true[1]) - np.maximum(times[:, 0], true[0])
    share = np.maximum(shared, 0) / 2_000_000
    best, *others = moments.find(vectors(0.2 + 0.5 * share), times, TEXT)
    assert (best.start_us, best.end_us) == pytest.approx(true, abs=STRIDE_US)
    assert all(other.score < best.score for other in others)


def test_spans_cover_the_whole_video_where_all_windows_are_alike():
    (best,) = moments.find(vectors([0.5] * 9), sliding(9), TEXT, top=1)
    assert (best.start_us, best.end_us) == (0, 9 * STRIDE_US)
    assert best.score == pytest.approx(0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_windows_longer_than_the_video_are_one_part(count):
    times = sliding(count, window_us=60_000_000)
    (best,) = moments.find(vectors([0.5] * count), times, TEXT)
    assert (best.start_us, best.end_us) == (0, count * STRIDE_US)


def test_no_span_crosses_a_time_without_a_window():
    times = np.array([[0, 2], [1, 3], [8, 10], [9, 11]]) * 1_000_000
    found = moments.find(vectors([0.9, 1, 1, 0.9]), times, TEXT)
    assert all(one.end_us <= 3_000_000 or one.start_us >= 8_000_000 for one in found)
    assert {one.start_us for one in found} & {0, 1_500_000}
    assert max(one.end_us for one in found) == 11_000_000


def test_an_hour_of_windows_is_searched_in_long_spans_too():
    count = 7200
    inside = (np.arange(count) >= 2000) & (np.arange(count) < 4400)  # 20 minutes
    best, *_ = moments.find(vectors(np.where(inside, 0.6, 0.1)), sliding(count), TEXT)
    ends = (best.start_us / STRIDE_US, best.end_us / STRIDE_US)
    assert overlap(ends, (2000, 4400)) > 0.9


def test_nothing_to_search_is_refused():
    with pytest.raises(ValueError, match="0 windows"):
        moments.find(np.zeros((0, 2)), np.zeros((0, 2), np.int64), TEXT)
    with pytest.raises(ValueError, match="0 spans"):
        moments.find(vectors([0.5]), sliding(1), TEXT, top=0)
