"""What the input pipeline hands to the training step."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Bool, Float32, Int32, UInt8

# Clips encoded at once: enough to keep a device busy, few enough for a laptop.
CLIPS_AT_ONCE = 32

Progress = Callable[[int, int], None]
"""Called with the clips done so far and the number of clips."""


class Crops(NamedTuple):
    """What is cut out of B clips, as decoded: frames before they have the model's size.

    Each clip's are an array of their own: one array of all would be a copy more.
    """

    frames: tuple[UInt8[Any, "T S S 3"], ...]  # the crop in the top left corner, then nothing
    side: Int32[Any, " B"]  # of the crop, pixels
    flipped: Bool[Any, " B"]  # whether it is to be


class Batch(NamedTuple):
    """B clips, a global batch or a host's slice of it: NumPy arrays, on the device JAX's."""

    frames: UInt8[Any, "B T H W 3"]  # or Crops, on the way to a device that scales them
    caption_ids: Int32[Any, "B L"]
    caption_mask: Bool[Any, "B L"]  # False at padding
    noun_ids: Int32[Any, "B K L"]  # of prompted nouns
    noun_mask: Bool[Any, "B K L"]
    noun_valid: Bool[Any, "B K"]  # False where the caption has no k-th noun
    index: Int32[Any, " B"]  # place in the global batch


class ExampleBatch(NamedTuple):
    """B examples of a downstream task, as `Batch`; what a task does not have is None."""

    frames: UInt8[Any, "B T H W 3"]  # or Crops
    text_ids: Int32[Any, "B L"] | None  # of a caption or a question
    text_mask: Bool[Any, "B L"] | None
    label: Int32[Any, " B"] | None
    index: Int32[Any, " B"]
    boxes: Float32[Any, "B N 4"] | None = None  # in what the frames show; without area: none
    box_labels: Bool[Any, "B N C"] | None = None  # which classes each box is of
