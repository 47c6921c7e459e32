"""Average precision, as the benchmarks of ActivityNet and AVA both compute it."""

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.finite import finite


def best_first(score: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The order of predictions by score; of equal ones the later comes first.

    So do the official scripts, which reverse an ascending sort, wherever that sort is stable:
    theirs is so for few predictions only, and ours always, on every machine alike.

    Raises:
      NonFiniteError: a score is not finite: no order is right.

    >>> best_first(np.array([0.2, 0.7, 0.2])).tolist()
    [1, 2, 0]
    """
    return np.argsort(finite("scores", score), kind="stable")[::-1]


def average_precision(hit: Bool[np.ndarray, " n"], positives: int) -> float:
    """Area under the interpolated precision–recall curve: Σ ΔR · max precision to the right.

    Args:
      hit: whether each prediction is right, the best first.
      positives: how many there are to be found, 1 or more; those that were not found count.

    >>> average_precision(np.array([True, False, True]), positives=2)
    0.8333333333333333
    >>> average_precision(np.array([], bool), positives=2)
    0.0
    """
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    to_the_right = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(to_the_right[hit])) / positives
