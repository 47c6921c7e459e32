"""Vectors as an index stores them: float16, or int8 with a scale per vector."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from trainer.finite import finite

Dtype = Literal["float16", "int8"]
DTYPES: tuple[Dtype, ...] = ("float16", "int8")

_SCALE = "_scale"  # ends the name of the scales of an int8 tensor
_LARGEST = 127


def quantize(
    name: str, vectors: Float[np.ndarray, "*n d"], dtype: Dtype, rows: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Return the tensors that store some vectors, by their names.

    An int8 vector times its scale is the vector, to within half a scale.

    Args:
      name: name of the vectors.
      vectors: the vectors.
      dtype: type of the numbers.
      rows: names of the entries of the first axis, for messages.

    Raises:
      NonFiniteError: a number is not finite, or exceeds the range of float16.

    >>> quantize("clip", np.array([[0.5, -1.0]]), "float16")["clip"].tolist()
    [[0.5, -1.0]]
    >>> [one.tolist() for one in quantize("clip", np.array([[0.5, -1.0]]), "int8").values()]
    [[[64, -127]], [0.007874015718698502]]
    """
    finite(name, vectors, rows)
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return {name: finite(f"{name} as float16", vectors.astype(np.float16), rows)}
    largest = np.abs(vectors).max(axis=-1, initial=0.0)
    scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
    return {name: np.rint(vectors / scale[..., None]).astype(np.int8), name + _SCALE: scale}


def tensor_names(name: str, dtype: Dtype) -> list[str]:
    """Return the names of the tensors that `quantize` makes.

    >>> tensor_names("clip", "int8")
    ['clip', 'clip_scale']
    """
    return [name] if dtype == "float16" else [name, name + _SCALE]


def dequantize(name: str, tensors: Mapping[str, np.ndarray]) -> Float[np.ndarray, "*n d"]:
    """Return the float32 vectors that some tensors store.

    >>> dequantize("clip", quantize("clip", np.array([[0.5, -1.0]]), "int8")).round(2).tolist()
    [[0.5, -1.0]]
    """
    vectors = tensors[name].astype(np.float32)
    if name + _SCALE in tensors:
        vectors *= tensors[name + _SCALE][..., None]
    return vectors
