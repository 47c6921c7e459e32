"""Retrieval's metrics: ranks, recall and median rank, as in MSR-VTT.

A caption has one correct clip. A clip may have several correct captions, of which the best counts.
Identical queries are separate queries. Peers treat ties differently: the main metrics average them,
and the optimistic ones are reported beside them.
"""

from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.finite import finite

Ties = Literal["average", "optimistic"]

_CUTOFFS = (1, 5, 10)

# "R@1" is not a valid Python name, so that the functional syntax is necessary.
Recalls = TypedDict("Recalls", {"R@1": float, "R@5": float, "R@10": float, "MedR": float})


class Direction(Recalls):
    """The metrics of one direction; `optimistic` resolves ties in favour of the correct answer."""

    optimistic: Recalls


class BothWays(TypedDict):
    """The metrics of both directions."""

    t2v: Direction
    v2t: Direction


class ZeroShot(BothWays):
    """The metrics of both directions over n clips and n captions."""

    n: int


def ranks(
    similarity: Float[np.ndarray, "q n"],
    ties: Ties = "average",
    right: Bool[np.ndarray, "q n"] | None = None,
) -> Float[np.ndarray, " q"]:
    """Return the rank, from 1, of each query's best correct answer among all wrong ones.

    With b_i the highest similarity among the correct answers of query i, and j over its wrong ones,
    rank_i = 1 + #{j: s_ij > b_i} + #{j: s_ij = b_i} / 2. The last term applies only if ties are
    averaged.

    Args:
      similarity: s, with queries in rows and answers in columns.
      ties: "average" counts a tied wrong answer as ½, "optimistic" as 0.
      right: True for correct answers, one or more per query; None takes the diagonal.

    Raises:
      NonFiniteError: a similarity is not finite. No wrong answer would rank above a nan.

    >>> s = np.array([[0.9, 0.1, 0.9], [0.5, 0.4, 0.3], [0.0, 0.0, 0.7]])
    >>> ranks(s).tolist(), ranks(s, "optimistic").tolist()
    ([1.5, 2.0, 1.0], [1.0, 2.0, 1.0])
    >>> ranks(s[:1], right=np.array([[True, True, False]])).tolist()
    [1.5]
    """
    similarity = finite("similarities", similarity)
    if right is None:
        right = np.eye(len(similarity), dtype=bool)
    best = np.max(similarity, axis=1, keepdims=True, initial=-np.inf, where=right)
    rank = 1.0 + np.sum((similarity > best) & ~right, axis=1)
    if ties == "average":
        rank += np.sum((similarity == best) & ~right, axis=1) / 2
    return rank


def recalls(rank: Float[np.ndarray, " n"]) -> Recalls:
    """Return recall at 1, 5 and 10 in percent, and the median rank (mean of the middle two).

    Raises:
      NonFiniteError: a rank is not finite.

    >>> recalls(np.array([1.0, 2.0, 7.0, 40.0]))
    {'R@1': 25.0, 'R@5': 50.0, 'R@10': 75.0, 'MedR': 4.5}
    """
    rank = finite("ranks", rank)
    at = [100.0 * float(np.mean(rank <= k)) for k in _CUTOFFS]
    return {"R@1": at[0], "R@5": at[1], "R@10": at[2], "MedR": float(np.median(rank))}


def expected_recall_at_1(similarity: Float[np.ndarray, "n n"]) -> float:
    """Return R@1 in percent if ties are broken at random: identical answers score 100/n.

    Raises:
      NonFiniteError: a similarity is not finite.

    >>> expected_recall_at_1(np.ones((4, 4))), expected_recall_at_1(np.eye(4))
    (25.0, 100.0)
    """
    similarity = finite("similarities", similarity)
    right = np.diag(similarity)[:, None]
    beaten = np.any(similarity > right, axis=1)
    return 100.0 * float(np.mean(np.where(beaten, 0.0, 1.0 / np.sum(similarity == right, axis=1))))


def zero_shot(similarity: Float[np.ndarray, "n n"]) -> ZeroShot:
    """Return the metrics of both directions for n captions of n clips.

    Args:
      similarity: captions in rows, clips in columns, pairs on the diagonal.

    Raises:
      NonFiniteError: a similarity is not finite.
    """
    return {"n": len(similarity), **both_ways(similarity, np.arange(len(similarity)))}


def both_ways(similarity: Float[np.ndarray, "q n"], clip_of: Int[np.ndarray, " q"]) -> BothWays:
    """Return the metrics of both directions for clips with any number of captions.

    Each caption is a t2v query among all clips. Each clip with a caption is a v2t query among all
    captions.

    Args:
      similarity: captions in rows, clips in columns.
      clip_of: number of each caption's clip.

    Raises:
      NonFiniteError: a similarity is not finite.

    >>> found = both_ways(np.array([[0.9, 0.1], [0.2, 0.4], [0.8, 0.3]]), np.array([0, 1, 1]))
    >>> round(found["t2v"]["R@1"], 1), found["v2t"]["R@1"]
    (66.7, 100.0)
    """
    right = clip_of[:, None] == np.arange(similarity.shape[1])
    described = np.any(right, axis=0)
    return {
        "t2v": _direction(similarity, right),
        "v2t": _direction(similarity.T[described], right.T[described]),
    }


def _direction(similarity: Float[np.ndarray, "q n"], right: Bool[np.ndarray, "q n"]) -> Direction:
    headline = recalls(ranks(similarity, right=right))
    return {**headline, "optimistic": recalls(ranks(similarity, "optimistic", right))}
