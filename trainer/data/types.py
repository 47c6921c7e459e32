"""Data types of the batches that the input pipeline passes to the training step."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Bool, Float32, Int32, UInt8

# Number of clips encoded at once: enough to keep a device busy, few enough for a laptop.
CLIPS_AT_ONCE = 32

Progress = Callable[[int, int], None]
"""Callback with the number of clips done so far and the total number of clips."""


class Crops(NamedTuple):
    """Crops of B clips as decoded, before the frames are scaled to the model's size.

    Each clip has an array of its own, because one array for all would need another copy.
    """

    frames: tuple[UInt8[Any, "T S S 3"], ...]  # the crop in the top left corner, then padding
    side: Int32[Any, " B"]  # side of the crop, pixels
    flipped: Bool[Any, " B"]  # True if the device should flip the crop


class Batch(NamedTuple):
    """B clips, a global batch or a host's slice of it: NumPy arrays, or JAX's on the device."""

    frames: UInt8[Any, "B T H W 3"]  # or Crops, if the device scales them
    caption_ids: Int32[Any, "B L"]
    caption_mask: Bool[Any, "B L"]  # False at padding
    noun_ids: Int32[Any, "B K L"]  # ids of prompted nouns
    noun_mask: Bool[Any, "B K L"]
    noun_valid: Bool[Any, "B K"]  # False where the caption has no k-th noun
    index: Int32[Any, " B"]  # index in the global batch


class ExampleBatch(NamedTuple):
    """B examples of a downstream task, as in `Batch`; fields that a task lacks are None."""

    frames: UInt8[Any, "B T H W 3"]  # or Crops
    text_ids: Int32[Any, "B L"] | None  # ids of a caption or a question
    text_mask: Bool[Any, "B L"] | None
    label: Int32[Any, " B"] | None
    index: Int32[Any, " B"]
    boxes: Float32[Any, "B N 4"] | None = None  # in the frames' coordinates; no area: padding
    box_labels: Bool[Any, "B N C"] | None = None  # classes of each box
