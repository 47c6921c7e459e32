"""SGAlign's sampling (G-TAD, section 3.3): where on the time axis each bin of a proposal looks.

A proposal starts at s and is of duration index d: it covers the times s … s + d + 1. Its region
reaches half of that further on both sides, [s − ½(d + 1), s + d + ½(d + 1)], and is cut into bins.
A bin's feature is the mean of n = ⌈length / bins⌉ samples, at start + (bin + (i + ½) / n) · width,
each interpolated linearly between two times. Samples before −1 or after T are zero; between those
and the ends of the axis they are the first or last feature.

All of this is linear in the features, so that it is one constant matrix.
"""

import functools

import numpy as np
from jaxtyping import Bool, Float, Int


def valid(length: int) -> Bool[np.ndarray, "d s"]:
    """Which proposals end on the time axis: s + d < T.

    >>> valid(3).astype(int).tolist()
    [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    """
    return np.add.outer(np.arange(length), np.arange(length)) < length


def region_of(length: int) -> Int[np.ndarray, "d s"]:
    """The row of `sampling` that holds for each proposal; invalid ones share the last.

    >>> region_of(2).tolist()
    [[0, 1], [2, 3]]
    """
    ends = valid(length)
    rows = np.full(ends.shape, int(ends.sum()))
    rows[ends] = np.arange(ends.sum())
    return rows


@functools.lru_cache(maxsize=4)
def sampling(length: int, inner: int, context: int) -> Float[np.ndarray, "a p t"]:
    """The weight of each time in each bin of each region, those of `region_of`.

    Args:
      length: T.
      inner: bins over the region, on the features themselves; the first of the p bins.
      context: bins over the same region, on the means of neighbours.

    >>> sampling(2, 2, 1).shape, sampling(2, 2, 1).sum(axis=2).round(2).tolist()[:2]
    ((4, 3, 2), [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    """
    durations, starts = np.nonzero(valid(length))
    half = 0.5 * (durations + 1)
    regions = np.stack([starts - half, starts + durations + half], axis=1)
    regions = np.concatenate([regions, [[0.0, 0.0]]])  # of all invalid proposals
    return np.concatenate(
        [bin_weights(regions, bins, length) for bins in (inner, context)], axis=1
    ).astype(np.float32)


def bin_weights(
    regions: Float[np.ndarray, "a 2"], bins: int, length: int
) -> Float[np.ndarray, "a p t"]:
    """The weight of each time in each bin of some regions; regions shorter than 1 count as 1.

    >>> bin_weights(np.array([[0.0, 2.0]]), 1, 4).tolist()
    [[[0.25, 0.5, 0.25, 0.0]]]
    """
    start = regions[:, 0]
    extent = np.maximum(regions[:, 1] - start, 1.0)
    samples = np.ceil(extent / bins).astype(int)
    weights = np.zeros((len(regions), bins, length))
    for n in np.unique(samples):
        (rows,) = np.nonzero(samples == n)
        place = np.arange(bins)[:, None] + (np.arange(n) + 0.5) / n  # [p, n], in bins
        time = start[rows, None, None] + place * (extent[rows, None, None] / bins)
        inside = (time >= -1) & (time <= length)
        time = np.clip(time, 0, length - 1)
        low = np.minimum(time.astype(int), max(length - 2, 0))
        share = time - low
        where = (rows[:, None, None], np.arange(bins)[None, :, None])
        np.add.at(weights, (*where, low), inside * (1 - share) / n)
        np.add.at(weights, (*where, np.minimum(low + 1, length - 1)), inside * share / n)
    return weights
