"""Sampling of regions of an axis in bins, as in RoIAlign and G-TAD's SGAlign.

A bin holds the mean of n = ⌈length / bins⌉ samples, at start + (bin + (i + ½) / n) · width. Each
sample is interpolated linearly between two positions of the axis. Samples below −1 or above the
number of positions are zero. Those between these limits and the ends of the axis take the value of
the first or last position.
"""

import numpy as np
from jaxtyping import Float


def bin_weights(
    regions: Float[np.ndarray, "a 2"], bins: int, length: int, least: float = 0.0
) -> Float[np.ndarray, "a p t"]:
    """Return each position's weight in each bin of the regions; an empty region has weights 0.

    Args:
      regions: starts and ends, in positions of the axis.
      bins: number of bins per region.
      length: number of positions on the axis.
      least: minimum length of a region; shorter regions are extended to it at their end.

    >>> bin_weights(np.array([[0.0, 2.0]]), 1, 4).tolist()
    [[[0.25, 0.5, 0.25, 0.0]]]
    """
    start = regions[:, 0]
    extent = np.maximum(regions[:, 1] - start, least)
    samples = np.ceil(extent / bins).astype(int)
    weights = np.zeros((len(regions), bins, length))
    for n in np.unique(samples[samples > 0]):
        (rows,) = np.nonzero(samples == n)
        place = np.arange(bins)[:, None] + (np.arange(n) + 0.5) / n  # [p, n], in bins
        at = start[rows, None, None] + place * (extent[rows, None, None] / bins)
        inside = (at >= -1) & (at <= length)
        at = np.clip(at, 0, length - 1)
        low = np.minimum(at.astype(int), max(length - 2, 0))
        share = at - low
        where = (rows[:, None, None], np.arange(bins)[None, :, None])
        np.add.at(weights, (*where, low), inside * (1 - share) / n)
        np.add.at(weights, (*where, np.minimum(low + 1, length - 1)), inside * share / n)
    return weights
