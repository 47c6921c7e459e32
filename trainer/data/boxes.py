"""Labelled boxes of pictures, and their coordinates in the crops of training.

A box is x1, y1, x2, y2 as fractions of width and height, from the left and from the top. A box
without area is padding, which fills up batches.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64


class Boxes(NamedTuple):
    """Boxes of n examples, concatenated in the examples' order."""

    counts: Int64[np.ndarray, " n"]
    corners: Float32[np.ndarray, "boxes 4"]
    labels: Bool[np.ndarray, "boxes c"]  # classes of each box

    def of(
        self, examples: Int64[np.ndarray, " b"]
    ) -> tuple[Float32[np.ndarray, "b k 4"], Bool[np.ndarray, "b k c"]]:
        """Return boxes and labels of `examples`, padded to the maximum count of any of the n.

        >>> boxes = Boxes(np.array([1, 2]), np.ones((3, 4), np.float32), np.ones((3, 5), bool))
        >>> corners, labels = boxes.of(np.array([0, 1, 0]))
        >>> corners[..., 0].tolist(), labels.sum(axis=2).tolist()
        ([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]], [[5, 0], [5, 5], [5, 0]])
        """
        places = np.arange(np.max(self.counts))
        real = places < self.counts[examples, None]
        first = (np.cumsum(self.counts) - self.counts)[examples]
        rows = np.where(real, first[:, None] + places, 0)
        corners = np.where(real[..., None], self.corners[rows], np.float32(0))
        return corners, self.labels[rows] & real[..., None]


def to_view(
    boxes: Float[np.ndarray, "b k 4"], view: Float[np.ndarray, "b 4"]
) -> Float[np.ndarray, "b k 4"]:
    """Return the boxes clipped to a view of each picture; boxes outside it have no area.

    Args:
      boxes: corners as fractions of the pictures' width and height.
      view: left, top, right, bottom of each view, as fractions too; a mirrored view has left and
        right swapped.

    >>> box = np.array([[[0.0, 0.25, 0.5, 0.75]]])
    >>> to_view(box, np.array([[0.25, 0.0, 0.75, 1.0]])).tolist()
    [[[0.0, 0.25, 0.5, 0.75]]]
    >>> to_view(box, np.array([[0.75, 0.0, 0.25, 1.0]])).tolist()
    [[[0.5, 0.25, 1.0, 0.75]]]
    """
    corner, opposite = view[:, None, [0, 1, 0, 1]], view[:, None, [2, 3, 2, 3]]
    inside = np.clip((boxes - corner) / (opposite - corner), 0, 1)
    first, last = inside[..., :2], inside[..., 2:]
    return np.concatenate([np.minimum(first, last), np.maximum(first, last)], axis=-1)
