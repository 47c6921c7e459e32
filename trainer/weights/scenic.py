"""Reader of ViViT checkpoints from scenic: a training state in one file of Flax's msgpack.

It does not need scenic. The parameters are under `optimizer.target`, in newer files under `params`.
Other parts of a state are ignored. Names and shapes are those of scenic's projects/vivit/model.py
with joint attention ("spacetime") over 3-D tubelets, the model of vivit_base_k400.py. Like this
project's, they are Flax's. Sizes and heads follow from shapes. The file lacks settings that are the
same for all of scenic's ViViTs: tanh GELU, Flax's epsilon of 1e-6, pixels in [-1, 1]. It also lacks
the numbers of frames and pixels of its positions. A run with another number of tokens raises an
error.

The tests use files written in this layout, not a published one, which is not available in CI.
"""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import serialization
from jaxtyping import PyTree

from trainer.configs.config import VideoConfig
from trainer.weights.hf_format import Checkpoint, WeightsError, sized, widened
from trainer.weights.param_mapping import SAME, Layout, Place, spare, to_params

_POSITIONS, _CLASS_TOKEN = "Transformer.posembed_input.pos_embedding", "cls"
_UNUSED = rf"{_CLASS_TOKEN}|output_projection\..*|pre_logits\..*"
_ATTENTION, _MLP = "MultiHeadDotProductAttention_0", "MlpBlock_0"
_FLAT = Layout(lambda x: x.reshape(-1, x.shape[-1]), lambda x: x)  # [t, h, w, I, O] to [t·h·w·I, O]
_WITHOUT = Layout(lambda x: x[0], lambda x: x[None])
_WITHOUT_CLASS_TOKEN = Layout(lambda x: x[0, 1:], lambda x: x[None])


def read(path: pathlib.Path) -> Checkpoint:
    """Read a file; a tensor's name is its path, joined by dots.

    Raises:
      WeightsError: the file cannot be read, is damaged, or is not a training state with parameters.
    """
    try:
        state = serialization.msgpack_restore(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} is damaged, or not a Flax file: {error}") from None
    params = None
    if isinstance(state, dict):
        optimizer = state.get("optimizer")
        params = optimizer.get("target") if isinstance(optimizer, dict) else state.get("params")
    if not isinstance(params, dict):
        raise WeightsError(
            f"{path} has neither optimizer.target nor params: give scenic's file `checkpoint` of "
            "a training state"
        )
    tensors = dict(_leaves(params, ""))
    if wrong := [name for name, leaf in tensors.items() if not isinstance(leaf, np.ndarray)]:
        raise WeightsError(f"{path}: {', '.join(wrong)} must be arrays")
    return Checkpoint(path, {}, {}, widened(tensors))


def video_config(checkpoint: Checkpoint, config: VideoConfig) -> VideoConfig:
    """Return a configuration with the checkpoint's sizes and `config`'s frames and resolution.

    Raises:
      WeightsError: the checkpoint is of another model, or its sizes conflict.
    """
    layers = {
        found[0]
        for name in checkpoint.tensors
        if (found := re.match(r"Transformer\.encoderblock_\d+(?=\.)", name))
    }
    if not layers:
        tops = sorted({name.split(".")[0] for name in checkpoint.tensors})
        raise WeightsError(
            f"{checkpoint.folder} has no Transformer.encoderblock_0 but {', '.join(tops)}: only "
            "ViViT with joint attention is supported, not factorised"
        )
    length, patch, across, _, width = _shape(checkpoint, "embedding.kernel", 5)
    if patch != across:
        raise WeightsError(f"{checkpoint.folder}: tubelets of {patch}×{across} are not square")
    _, heads, _ = _shape(checkpoint, f"Transformer.encoderblock_0.{_ATTENTION}.query.kernel", 3)
    _, hidden = _shape(checkpoint, f"Transformer.encoderblock_0.{_MLP}.Dense_0.kernel", 2)
    return sized(
        checkpoint,
        config,
        tubelet=length,
        patch=patch,
        width=width,
        layers=len(layers),
        heads=heads,
        mlp_width=hidden,
        norm_eps=1e-6,
        gelu="tanh",
        pixel_mean=(0.5, 0.5, 0.5),
        pixel_std=(0.5, 0.5, 0.5),
    )


def params(checkpoint: Checkpoint, config: VideoConfig) -> PyTree:
    """Return the video encoder's parameters in the checkpoint: all but the grouping parts.

    Raises:
      WeightsError: a tensor is missing or unexpected, or has a wrong shape. Or the number of
        positions differs from the number of tokens.
    """
    classified = _CLASS_TOKEN in checkpoint.tensors
    count = _shape(checkpoint, _POSITIONS, 3)[1] - classified
    if count != config.windows * config.patches:
        raise WeightsError(
            f"{checkpoint.folder} has positions for {count} tokens, but {config.frames} frames of "
            f"{config.resolution}² make {config.windows * config.patches}: set video.frames and "
            "video.resolution as in its training (32 and 224 if published), then use that run "
            "with --start-from for other sizes"
        )
    layout = _WITHOUT_CLASS_TOKEN if classified else _WITHOUT
    shape = (1, count + classified, config.width)
    expected = [*places(config), Place("positions", _POSITIONS, shape, layout)]
    return to_params(checkpoint, "", expected, _UNUSED)


def unused_parts(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the unused arrays: the class token and the classifier."""
    return spare(checkpoint, "", _UNUSED)


def places(config: VideoConfig) -> Iterator[Place]:
    """Yield the mapping of every parameter that both encoders have, except the positions."""
    width, heads, hidden = config.width, config.heads, config.mlp_width
    each = width // heads
    tubelet = (config.tubelet, config.patch, config.patch, 3, width)
    yield Place("embed.kernel", "embedding.kernel", tubelet, _FLAT)
    yield Place("embed.bias", "embedding.bias", (width,), SAME)
    for layer in range(1, config.layers + 1):
        ours, theirs = f"layer_{layer}", f"Transformer.encoderblock_{layer - 1}"
        yield from _norm(f"{ours}.norm_attention", f"{theirs}.LayerNorm_0", width)
        for part in ("query", "key", "value"):
            path, name = f"{ours}.attention.{part}", f"{theirs}.{_ATTENTION}.{part}"
            yield from _dense(path, name, (width, heads, each), (heads, each))
        path, name = f"{ours}.attention.out", f"{theirs}.{_ATTENTION}.out"
        yield from _dense(path, name, (heads, each, width), (width,))
        yield from _norm(f"{ours}.norm_mlp", f"{theirs}.LayerNorm_1", width)
        yield from _dense(f"{ours}.mlp.in", f"{theirs}.{_MLP}.Dense_0", (width, hidden), (hidden,))
        yield from _dense(f"{ours}.mlp.out", f"{theirs}.{_MLP}.Dense_1", (hidden, width), (width,))
    yield from _norm("norm", "Transformer.encoder_norm", width)


def _dense(path: str, name: str, kernel: tuple[int, ...], bias: tuple[int, ...]) -> Iterator[Place]:
    yield Place(f"{path}.kernel", f"{name}.kernel", kernel, SAME)
    yield Place(f"{path}.bias", f"{name}.bias", bias, SAME)


def _norm(path: str, name: str, width: int) -> Iterator[Place]:
    yield Place(f"{path}.scale", f"{name}.scale", (width,), SAME)
    yield Place(f"{path}.bias", f"{name}.bias", (width,), SAME)


def _leaves(tree: dict[Any, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _shape(checkpoint: Checkpoint, name: str, rank: int) -> tuple[int, ...]:
    """Return a tensor's shape after checking its number of axes."""
    tensor = checkpoint.tensors.get(name)
    if tensor is None:
        raise WeightsError(f"{checkpoint.folder}: {name} is missing")
    if tensor.ndim != rank:
        raise WeightsError(
            f"{checkpoint.folder}: {name} has shape {tensor.shape}, expected {rank} axes"
        )
    return tensor.shape
