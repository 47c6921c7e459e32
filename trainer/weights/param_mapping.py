"""The mapping between a checkpoint's tensors and the model's parameters, in both directions."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from trainer.weights.hf_format import Checkpoint, WeightsError


class Layout(NamedTuple):
    """The conversion of a checkpoint's tensor to a parameter (`ours`) and back (`theirs`)."""

    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]


class Place(NamedTuple):
    """One parameter: its path in the model, the tensor's name and shape, and their conversion."""

    path: str
    name: str
    shape: tuple[int, ...]
    layout: Layout


SAME = Layout(lambda x: x, lambda x: x)
LINEAR = Layout(lambda x: x.T, lambda x: x.T)
"""The layout of a dense kernel, [out, in] to [in, out]."""


def heads_last(heads: int) -> Layout:
    """Return the layout of a projection to heads, [D, D] to [D, h, k], or its bias, [D] to [h, k].

    >>> heads_last(2).ours(np.zeros((6, 6))).shape, heads_last(2).ours(np.zeros(6)).shape
    ((6, 2, 3), (2, 3))
    """
    return Layout(
        lambda x: x.T.reshape(*x.shape[1:], heads, -1),
        lambda x: x.reshape(*x.shape[:-2], -1).T,
    )


def heads_first(heads: int) -> Layout:
    """Return the layout of a projection from heads, [D, D] to [h, k, D]."""
    return Layout(
        lambda x: x.T.reshape(heads, -1, x.shape[0]),
        lambda x: x.reshape(-1, x.shape[-1]).T,
    )


def tubelet(length: int, patch: int) -> Layout:
    """Return the layout of a 3-D convolution over tubelets, [O, I, t, h, w] to [t·h·w·I, O]."""
    return Layout(
        lambda x: x.transpose(2, 3, 4, 1, 0).reshape(-1, x.shape[0]),
        lambda x: x.reshape(length, patch, patch, -1, x.shape[-1]).transpose(4, 3, 0, 1, 2),
    )


def dense(path: str, name: str, inputs: int, outputs: int) -> Iterator[Place]:
    """Yield the mapping of a dense layer's kernel and bias."""
    yield Place(f"{path}.kernel", f"{name}.weight", (outputs, inputs), LINEAR)
    yield Place(f"{path}.bias", f"{name}.bias", (outputs,), SAME)


def norm(path: str, name: str, width: int) -> Iterator[Place]:
    """Yield the mapping of a layer norm's scale and bias."""
    yield Place(f"{path}.scale", f"{name}.weight", (width,), SAME)
    yield Place(f"{path}.bias", f"{name}.bias", (width,), SAME)


def to_params(
    checkpoint: Checkpoint, prefix: str, places: Iterable[Place], unused: str
) -> PyTree[np.ndarray]:
    """Convert a checkpoint's tensors to parameters.

    Args:
      checkpoint: the checkpoint with the tensors.
      prefix: prefix of the encoder's names in a model with a head; may be absent.
      places: mappings of all parameters that the checkpoint contains.
      unused: a regular expression for the full names of tensors that the model does not use.

    Raises:
      WeightsError: a tensor is missing, unexpected or not finite, or has a wrong shape or type;
        names all of them.
    """
    heads = set(spare(checkpoint, prefix, unused))
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.tensors.items()
        if name not in heads
    }
    faults: list[str] = []
    params: dict[str, Any] = {}
    for place in places:
        tensor = tensors.pop(place.name, None)
        if tensor is None:
            faults.append(f"{place.name} is missing")
        elif tensor.shape != place.shape:
            faults.append(f"{place.name} has shape {tensor.shape}, expected {place.shape}")
        elif tensor.dtype != np.float32:
            faults.append(f"{place.name} has type {tensor.dtype}")
        elif bad := int(tensor.size - np.isfinite(tensor).sum()):
            faults.append(f"{place.name} has {bad:,} of {tensor.size:,} values that are not finite")
        else:
            _put(params, place.path, place.layout.ours(tensor))
    faults += [f"{name} is not a tensor of the model" for name in sorted(tensors)]
    if faults:
        raise WeightsError(
            f"{checkpoint.folder} does not match its own config: {'; '.join(faults)}"
        )
    return params


def spare(checkpoint: Checkpoint, prefix: str, unused: str) -> list[str]:
    """Return the names of tensors outside the encoder: heads, poolers, decoders.

    If some names have the encoder's prefix, those without it belong to parts on top of the encoder.
    """
    headed = any(name.startswith(prefix) for name in checkpoint.tensors)
    return [
        name
        for name in checkpoint.tensors
        if (headed and not name.startswith(prefix))
        or re.fullmatch(unused, name.removeprefix(prefix))
    ]


def parts(names: Iterable[str]) -> list[str]:
    """Return the parts of a model that tensors belong to.

    >>> parts(["bert.pooler.dense.bias", "cls.predictions.bias", "classifier.weight"])
    ['classifier', 'cls', 'pooler']
    """
    encoder = r"^(bert|vivit|videomae|vit|dinov2|dinov2_with_registers|vision_model)\."
    bare = [re.sub(encoder, "", name) for name in names]
    return sorted({name if name.startswith("embeddings") else name.split(".")[0] for name in bare})


def to_tensors(params: PyTree, places: Iterable[Place]) -> dict[str, np.ndarray]:
    """Convert parameters to tensors by name; the inverse of `to_params`."""
    return {
        place.name: place.layout.theirs(np.asarray(_get(params, place.path))) for place in places
    }


def _put(params: dict[str, Any], path: str, value: np.ndarray) -> None:
    *above, last = path.split(".")
    for name in above:
        params = params.setdefault(name, {})
    params[last] = np.asarray(value, order="C")  # a scalar stays one


def _get(params: Any, path: str) -> Any:
    for name in path.split("."):
        params = params[name]
    return params
