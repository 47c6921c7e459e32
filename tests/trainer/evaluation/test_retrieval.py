import statistics

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.evaluation import retrieval

# Few distinct values, so that ties are common.
similarities = st.integers(1, 12).flatmap(
    lambda n: hnp.arrays(np.float32, (n, n), elements=st.sampled_from([-0.5, 0.0, 0.25, 1.0]))
)


def slow_ranks(similarity, tie):
    ranks = []
    for i in range(len(similarity)):
        rank = 1.0
        for j in range(len(similarity)):
            if similarity[i][j] > similarity[i][i]:
                rank += 1
            elif j != i and similarity[i][j] == similarity[i][i]:
                rank += tie
        ranks.append(rank)
    return ranks


@hypothesis.given(similarities)
def test_ranks_equal_a_count_by_hand(similarity):
    assert retrieval.ranks(similarity).tolist() == slow_ranks(similarity, tie=0.5)
    assert retrieval.ranks(similarity, "optimistic").tolist() == slow_ranks(similarity, tie=0)


@hypothesis.given(similarities, st.randoms())
def test_the_order_of_pairs_does_not_matter(similarity, random):
    order = list(range(len(similarity)))
    random.shuffle(order)
    ranks = retrieval.ranks(similarity)
    assert retrieval.ranks(similarity[np.ix_(order, order)]).tolist() == ranks[order].tolist()


@hypothesis.given(similarities)
def test_figures_equal_counts_by_hand(similarity):
    figures = retrieval.zero_shot(similarity)
    assert figures["n"] == len(similarity)
    for direction, matrix in (("t2v", similarity), ("v2t", similarity.T)):
        for tie, found in ((0.5, figures[direction]), (0, figures[direction]["optimistic"])):
            ranks = slow_ranks(matrix, tie)
            for k in (1, 5, 10):
                share = sum(rank <= k for rank in ranks) / len(ranks)
                assert found[f"R@{k}"] == pytest.approx(100 * share)
            assert found["MedR"] == statistics.median(ranks)


def test_perfect_and_constant_similarities():
    perfect = retrieval.zero_shot(np.eye(8, dtype=np.float32))["t2v"]
    assert (perfect["R@1"], perfect["MedR"]) == (100, 1)
    constant = retrieval.zero_shot(np.zeros((9, 9), np.float32))["t2v"]
    assert (constant["R@1"], constant["R@5"], constant["MedR"]) == (0, 100, 5)
    assert constant["optimistic"]["R@1"] == 100


def test_duplicate_captions_stay_separate_queries():
    # Captions 0 and 1 are the same text: each ties its own clip with nothing but its similarity.
    similarity = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.0, 0.0, 0.7]])
    assert retrieval.ranks(similarity).tolist() == [1, 2, 1]
    # From the clips' side, the two texts tie.
    assert retrieval.ranks(similarity.T).tolist() == [1.5, 1.5, 1]


@hypothesis.given(st.data())
def test_of_several_captions_the_best_counts(data):
    """Compare with ranks counted one by one. Clips without a caption are not queries."""
    videos = data.draw(st.integers(1, 5))
    clip_of = data.draw(st.lists(st.integers(0, videos - 1), min_size=1, max_size=9))
    values = st.sampled_from([-0.5, 0.0, 0.25, 1.0])
    similarity = data.draw(hnp.arrays(np.float32, (len(clip_of), videos), elements=values))
    found = retrieval.both_ways(similarity, np.array(clip_of))
    for tie, pick in ((0.5, lambda d: d), (0, lambda d: d["optimistic"])):
        t2v = [
            1 + sum(s > row[right] for s in row) + tie * (sum(s == row[right] for s in row) - 1)
            for row, right in zip(similarity, clip_of, strict=True)
        ]
        v2t = []
        for video in sorted(set(clip_of)):
            own = [
                row[video] for row, right in zip(similarity, clip_of, strict=True) if right == video
            ]
            rest = [
                row[video] for row, right in zip(similarity, clip_of, strict=True) if right != video
            ]
            v2t.append(1 + sum(s > max(own) for s in rest) + tie * sum(s == max(own) for s in rest))
        for direction, ranks in (("t2v", t2v), ("v2t", v2t)):
            figures = pick(found[direction])
            assert figures["MedR"] == statistics.median(ranks)
            for k in (1, 5, 10):
                share = sum(rank <= k for rank in ranks) / len(ranks)
                assert figures[f"R@{k}"] == pytest.approx(100 * share)
