"""Average precision, as in the benchmarks of ActivityNet and AVA."""

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.finite import finite


def descending_order(score: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return the order of predictions by descending score; of equal scores, the later comes first.

    The official scripts reverse an ascending sort, which gives this order if the sort is stable.
    Their sort is stable for few predictions only. This one is always stable, on every machine.

    Raises:
      NonFiniteError: a score is not finite, so that the order is undefined.

    >>> descending_order(np.array([0.2, 0.7, 0.2])).tolist()
    [1, 2, 0]
    """
    return np.argsort(finite("scores", score), kind="stable")[::-1]


def average_precision(hit: Bool[np.ndarray, " n"], positives: int) -> float:
    """Return the area under the interpolated precision–recall curve.

    The area is Σ ΔR · max precision to the right.

    Args:
      hit: True for each correct prediction, in descending order of score.
      positives: number of true instances, 1 or more, including those that were not found.

    >>> average_precision(np.array([True, False, True]), positives=2)
    0.8333333333333333
    >>> average_precision(np.array([], bool), positives=2)
    0.0
    """
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    to_the_right = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(to_the_right[hit])) / positives
