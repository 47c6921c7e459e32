"""SGAlign's sampling (G-TAD, section 3.3) of the time axis for the bins of each proposal.

A proposal with start s and duration index d covers the times s … s + d + 1. Its region extends
½(d + 1) further on both sides, [s − ½(d + 1), s + d + ½(d + 1)], and is cut into bins
(trainer/tasks/roi_sampling.py). The bins are linear in the features: one constant matrix.
"""

import functools

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.tasks.roi_sampling import bin_weights


def valid(length: int) -> Bool[np.ndarray, "d s"]:
    """Return True for the proposals that end on the time axis: s + d < T.

    >>> valid(3).astype(int).tolist()
    [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    """
    return np.add.outer(np.arange(length), np.arange(length)) < length


def region_of(length: int) -> Int[np.ndarray, "d s"]:
    """Return the row of `sampling` for each proposal; invalid proposals share the last row.

    >>> region_of(2).tolist()
    [[0, 1], [2, 3]]
    """
    ends = valid(length)
    rows = np.full(ends.shape, int(ends.sum()))
    rows[ends] = np.arange(ends.sum())
    return rows


@functools.lru_cache(maxsize=4)
def sampling(length: int, inner: int, context: int) -> Float[np.ndarray, "a p t"]:
    """Return the weight of each time in each bin of each region, in the order of `region_of`.

    Args:
      length: number of times T.
      inner: number of bins over the region for the features; they are the first of the p bins.
      context: number of bins over the same region for the means of neighbours.

    >>> sampling(2, 2, 1).shape, sampling(2, 2, 1).sum(axis=2).round(2).tolist()[:2]
    ((4, 3, 2), [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    """
    durations, starts = np.nonzero(valid(length))
    half = 0.5 * (durations + 1)
    regions = np.stack([starts - half, starts + durations + half], axis=1)
    regions = np.concatenate([regions, [[0.0, 0.0]]])  # the region of all invalid proposals
    return np.concatenate(
        [bin_weights(regions, bins, length, least=1.0) for bins in (inner, context)], axis=1
    ).astype(np.float32)
