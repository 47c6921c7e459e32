"""Regions of an axis cut into bins, as RoIAlign and G-TAD's SGAlign both sample them.

A bin holds the mean of n = ⌈length / bins⌉ samples, at start + (bin + (i + ½) / n) · width, each
interpolated linearly between two places of the axis. Samples before −1 or after the number of
places are zero; between those and the ends of the axis they are what the first or last place has.
"""

import numpy as np
from jaxtyping import Float


def bin_weights(
    regions: Float[np.ndarray, "a 2"], bins: int, length: int, least: float = 0.0
) -> Float[np.ndarray, "a p t"]:
    """The weight of each place in each bin of some regions; in a region without length all are 0.

    Args:
      regions: starts and ends, in places.
      bins: how many each is cut into.
      length: places on the axis.
      least: what shorter regions count as.

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
