"""What the input pipeline hands to the training step."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int32, UInt8

_Array = jax.Array | np.ndarray


class Batch(NamedTuple):
    """B clips: of a whole global batch, or of a host's slice of it."""

    frames: UInt8[_Array, "B T H W 3"]
    caption_ids: Int32[_Array, "B L"]
    caption_mask: Bool[_Array, "B L"]  # False at padding
    noun_ids: Int32[_Array, "B K L"]  # of prompted nouns
    noun_mask: Bool[_Array, "B K L"]
    noun_valid: Bool[_Array, "B K"]  # False where the caption has no k-th noun
    index: Int32[_Array, " B"]  # place in the global batch
