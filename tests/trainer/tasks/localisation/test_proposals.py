import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trainer.tasks.localisation.proposals import Proposals, proposals, soft_nms

LENGTH = 6
probabilities = st.sampled_from([0.1, 0.2, 0.4, 0.5, 0.9])


@given(
    judged=arrays.arrays(float, (LENGTH, LENGTH, 2), elements=probabilities),
    start=arrays.arrays(float, LENGTH, elements=probabilities),
    end=arrays.arrays(float, LENGTH, elements=probabilities),
)
def test_proposals_join_starts_and_later_ends_within_the_axis(judged, start, end):
    def kept(of, t):
        peak = 0 < t < LENGTH - 1 and of[t] > of[t - 1] and of[t] > of[t + 1]
        return peak or of[t] > 0.5 * max(of)

    expected = {}
    for d in range(LENGTH):
        for s in range(LENGTH):
            e = s + d + 1
            if e < LENGTH and (s == 0 or kept(start, s)) and (e == LENGTH - 1 or kept(end, e)):
                expected[s / LENGTH, e / LENGTH] = judged[d, s, 0] * judged[d, s, 1]
    found = proposals(judged, start, end)
    assert dict(zip(map(tuple, found.segment.tolist()), found.score.tolist(), strict=True)) == (
        pytest.approx(expected)
    )


def plain_soft_nms(entries, sigma, at_most):
    """Entries [score, start, end], as lists."""
    left, kept = sorted(entries, key=lambda one: -one[0]), []
    while len(left) > 1 and len(kept) < at_most:
        best = max(left, key=lambda one: one[0])
        left.remove(best)
        kept.append(best)
        for one in left:
            shared = min(one[2], best[2]) - max(one[1], best[1])
            if shared > 0:
                iou = shared / (max(one[2], best[2]) - min(one[1], best[1]))
                one[0] *= math.exp(-(iou**2) / sigma)
    return kept


@given(
    st.lists(
        st.tuples(st.floats(0.01, 1), st.floats(0, 0.5), st.floats(0.01, 0.5)),
        min_size=2,
        max_size=9,
        unique=True,
    ),
    st.sampled_from([2, 5, 100]),
)
def test_soft_nms_runs_until_one_is_left(drawn, at_most):
    entries = [[score, start, start + length] for score, start, length in drawn]
    found = soft_nms(
        Proposals(np.array([one[1:] for one in entries]), np.array([one[0] for one in entries])),
        0.8,
        at_most,
    )
    expected = plain_soft_nms(entries, 0.8, at_most)
    assert len(expected) == min(len(entries) - 1, at_most)
    assert found.score == pytest.approx([one[0] for one in expected])
    assert found.segment.tolist() == [one[1:] for one in expected]


def test_a_video_with_one_proposal_keeps_it():
    one = Proposals(np.array([[0.0, 0.5]]), np.array([0.3]))
    assert soft_nms(one) is one
