"""Batches of clip pixels without copying them.

tf.data copies tensors into a batch, but it copies a variant by reference. A list of one tensor is a
variant.
"""

import numpy as np

from trainer.data.cpu_tensorflow import tf


def to_variant(pixels: tf.Tensor) -> tf.Tensor:
    """Return a variant [] that holds uint8 of any shape, which a batch does not copy."""
    empty = tf.raw_ops.EmptyTensorList(element_shape=-1, max_num_elements=1, element_dtype=tf.uint8)
    return tf.raw_ops.TensorListPushBack(input_handle=empty, tensor=pixels)


def from_variants(variants: tf.Tensor) -> tuple[np.ndarray, ...]:
    """Return the tensors in the variants [n], as arrays that share their memory.

    >>> one, two = (to_variant(tf.fill([size], tf.constant(7, tf.uint8))) for size in (1, 2))
    >>> [pixels.tolist() for pixels in from_variants(tf.stack([one, two]))]
    [[7], [7, 7]]
    """

    def held(variant: tf.Tensor) -> np.ndarray:
        pixels = tf.raw_ops.TensorListGetItem(
            input_handle=variant, index=0, element_shape=-1, element_dtype=tf.uint8
        )
        return np.asarray(memoryview(pixels))

    return tuple(map(held, tf.unstack(variants)))
