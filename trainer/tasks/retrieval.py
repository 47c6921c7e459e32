"""Zero-shot retrieval: each caption finds its clip, and each clip its caption.

Metrics are those of MSR-VTT retrieval. Query i has one right answer, i, among all n; equal
queries stay separate queries. Peers treat ties differently, so the headline averages them and
the optimistic figure stands beside it.
"""

from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Float

Ties = Literal["average", "optimistic"]

_CUTOFFS = (1, 5, 10)

# The functional form, since "R@1" is no Python name.
Recalls = TypedDict("Recalls", {"R@1": float, "R@5": float, "R@10": float, "MedR": float})


class Direction(Recalls):
    """Figures of one direction; `optimistic` gives every tie to the right answer."""

    optimistic: Recalls


class ZeroShot(TypedDict):
    """Figures of both directions over n clips and as many captions."""

    n: int
    t2v: Direction
    v2t: Direction


def ranks(similarity: Float[np.ndarray, "n n"], ties: Ties = "average") -> Float[np.ndarray, " n"]:
    """The rank, from 1, of each query's right answer.

    rank_i = 1 + #{j: s_ij > s_ii} + #{j ≠ i: s_ij = s_ii} / 2, the last term only if ties are
    averaged.

    Args:
      similarity: s; queries in rows, answers in columns, the right ones on the diagonal.
      ties: whether an equally similar answer counts half or not at all.

    >>> s = np.array([[0.9, 0.1, 0.9], [0.5, 0.4, 0.3], [0.0, 0.0, 0.7]])
    >>> ranks(s).tolist(), ranks(s, "optimistic").tolist()
    ([1.5, 2.0, 1.0], [1.0, 2.0, 1.0])
    """
    right = np.diag(similarity)[:, None]
    rank = 1.0 + np.sum(similarity > right, axis=1)
    if ties == "average":
        rank += (np.sum(similarity == right, axis=1) - 1) / 2
    return rank


def recalls(rank: Float[np.ndarray, " n"]) -> Recalls:
    """Recall at 1, 5 and 10 in percent, and the median rank (mean of the middle two).

    >>> recalls(np.array([1.0, 2.0, 7.0, 40.0]))
    {'R@1': 25.0, 'R@5': 50.0, 'R@10': 75.0, 'MedR': 4.5}
    """
    at = [100.0 * float(np.mean(rank <= k)) for k in _CUTOFFS]
    return {"R@1": at[0], "R@5": at[1], "R@10": at[2], "MedR": float(np.median(rank))}


def first_by_chance(similarity: Float[np.ndarray, "n n"]) -> float:
    """R@1 in percent if ties are broken by chance: answers that are all alike score 100/n.

    >>> first_by_chance(np.ones((4, 4))), first_by_chance(np.eye(4))
    (25.0, 100.0)
    """
    right = np.diag(similarity)[:, None]
    beaten = np.any(similarity > right, axis=1)
    return 100.0 * float(np.mean(np.where(beaten, 0.0, 1.0 / np.sum(similarity == right, axis=1))))


def zero_shot(similarity: Float[np.ndarray, "n n"]) -> ZeroShot:
    """Both directions of retrieval.

    Args:
      similarity: captions in rows, clips in columns, pairs on the diagonal.
    """
    return {
        "n": len(similarity),
        "t2v": _direction(similarity),
        "v2t": _direction(similarity.T),
    }


def _direction(similarity: Float[np.ndarray, "n n"]) -> Direction:
    headline = recalls(ranks(similarity))
    return {**headline, "optimistic": recalls(ranks(similarity, "optimistic"))}
