"""Initialization of the video encoder from an image encoder, inflated to tubelets.

ViT (Dosovitskiy et al. 2021), DINOv2 (Oquab et al. 2024) and the vision encoders of CLIP (Radford
et al. 2021) and SigLIP (Zhai et al. 2023) are pre-norm ViTs over patches. Their differences:

              prefix tokens           norm before   layer scale   GELU    pixels
    ViT       class token             no            no            erf     in [-1, 1]
    DINOv2    class token, registers  no            yes           erf     ImageNet's mean, deviation
    CLIP      class token             yes           no            quick   CLIP's mean, deviation
    SigLIP    none                    no            no            tanh    in [-1, 1]

Inflation (Arnab et al. 2021, section 3.4) makes a patch kernel a tubelet kernel, by
`VideoConfig.inflation`, and repeats positions and prefix tokens over windows. So without group
tokens, each window of a still clip has the image's hidden states. Layer scales are folded into the
output projections. CLIP's final norm was trained on its class token alone. It is loaded too.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from trainer.configs.config import VideoConfig
from trainer.weights import pixel_range
from trainer.weights.hf_format import CONFIG, Checkpoint, WeightsError, gelu, sized
from trainer.weights.param_mapping import (
    SAME,
    Layout,
    Place,
    dense,
    heads_first,
    heads_last,
    norm,
    spare,
    to_params,
    tubelet,
)

_HALF = (0.5, 0.5, 0.5)


class _Names(NamedTuple):
    """Names of an image encoder's tensors, which are those of ViT by default."""

    embed: str = "embeddings.patch_embeddings.projection"
    embed_bias: bool = True
    positions: str = "embeddings.position_embeddings"
    class_token: str | None = "embeddings.cls_token"
    registers: str | None = None
    norm_before: str | None = None
    layers: str = "encoder.layer"
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after")
    attention: tuple[str, ...] = (
        *("attention.attention.query", "attention.attention.key", "attention.attention.value"),
        "attention.output.dense",
    )
    mlp: tuple[str, str] = ("intermediate.dense", "output.dense")
    scales: tuple[str, str] | None = None  # LayerScale, after attention and perceptron
    norm: str = "layernorm"


class _Kind(NamedTuple):
    """A family of image encoders."""

    prefix: str  # of the encoder's names in a model with a head
    names: _Names
    unused: str  # a regular expression for tensors that the video encoder does not use
    mean: pixel_range.Colour  # defaults where the checkpoint has no processor's file
    std: pixel_range.Colour
    section: str | None = None  # of config.json in a model with a text encoder
    # Settings that a section may leave out: the defaults of its class in transformers.
    defaults: Mapping[str, Any] = types.MappingProxyType({})


_VIT = _Kind("vit.", _Names(), r"pooler\..*|classifier\..*|embeddings\.mask_token", _HALF, _HALF)
_DINOV2 = _VIT._replace(
    prefix="dinov2.",
    names=_Names(
        norms=("norm1", "norm2"),
        mlp=("mlp.fc1", "mlp.fc2"),
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    ),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
_CLIP = _Kind(
    "vision_model.",
    _Names(
        embed="embeddings.patch_embedding",
        embed_bias=False,
        positions="embeddings.position_embedding.weight",
        class_token="embeddings.class_embedding",
        norm_before="pre_layrnorm",
        layers="encoder.layers",
        norms=("layer_norm1", "layer_norm2"),
        attention=tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
        mlp=("mlp.fc1", "mlp.fc2"),
        norm="post_layernorm",
    ),
    r"embeddings\.position_ids|head\..*",
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
    "vision_config",
    {
        **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
        **{"num_attention_heads": 12, "image_size": 224, "patch_size": 32},
        **{"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    },
)
_SIGLIP = _CLIP._replace(
    names=_CLIP.names._replace(embed_bias=True, class_token=None, norm_before=None),
    mean=_HALF,
    std=_HALF,
    defaults={
        **_CLIP.defaults,
        **{"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    },
)
_KINDS = {
    "vit": _VIT,
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2._replace(
        prefix="dinov2_with_registers.",
        names=_DINOV2.names._replace(registers="embeddings.register_tokens"),
    ),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
}
MODEL_TYPES = tuple(_KINDS)
"""Values of `model_type` in config.json that this module reads."""


def video_config(checkpoint: Checkpoint, config: VideoConfig) -> VideoConfig:
    """Return a configuration with the checkpoint's settings and `config`'s clips and tubelets.

    Raises:
      WeightsError: a setting is missing or unsupported, or the sizes conflict.
    """
    kind, checkpoint = _read(checkpoint)
    if checkpoint.config.get("use_swiglu_ffn"):
        raise WeightsError(
            f"{checkpoint.folder / CONFIG}: use_swiglu_ffn is true, but SwiGLU layers, as in "
            "DINOv2-giant, are not supported: give a smaller DINOv2"
        )
    width = checkpoint.setting("hidden_size", int)
    if kind.names.scales is None:
        hidden = checkpoint.setting("intermediate_size", int)
    else:
        ratio = checkpoint.setting("mlp_ratio", float)
        try:
            hidden = int(width * ratio)
        except (OverflowError, ValueError):
            raise WeightsError(
                f"{checkpoint.folder / CONFIG}: hidden_size {width} × mlp_ratio {ratio} must be a "
                "number of hidden units"
            ) from None
    _, patch = _grid(checkpoint)
    mean, std = pixel_range.scaling(checkpoint, kind.mean, kind.std)
    return sized(
        checkpoint,
        config,
        patch=patch,
        width=width,
        layers=checkpoint.setting("num_hidden_layers", int),
        heads=checkpoint.setting("num_attention_heads", int),
        mlp_width=hidden,
        prefix_tokens=(kind.names.class_token is not None) + _registers(kind, checkpoint),
        norm_before=kind.names.norm_before is not None,
        norm_eps=checkpoint.setting("layer_norm_eps", float),
        gelu=gelu(checkpoint),
        pixel_mean=mean,
        pixel_std=std,
    )


def params(checkpoint: Checkpoint, config: VideoConfig) -> PyTree:
    """Return the video encoder's parameters that the checkpoint fills: all but grouping parts.

    Positions are resampled to `config`'s patches as the image encoder resamples them.

    Raises:
      WeightsError: a tensor is missing or unexpected, or has a wrong shape.
    """
    kind, checkpoint = _read(checkpoint)
    side, _ = _grid(checkpoint)
    registers = _registers(kind, checkpoint)
    expected = places(
        kind.names,
        config,
        positions=side * side,
        registers=registers,
        biased=checkpoint.setting("qkv_bias", bool, True),
    )
    found = to_params(checkpoint, kind.prefix, expected, kind.unused)
    found["embed"].setdefault("bias", np.zeros(config.width, np.float32))
    for layer in range(1, config.layers + 1):
        ours = found[f"layer_{layer}"]
        for part in ("query", "key", "value"):
            projection = ours["attention"][part]
            projection.setdefault("bias", np.zeros(projection["kernel"].shape[1:], np.float32))
        for part in ("attention", "mlp"):
            scale = ours.pop(f"scale_{part}", None)
            if scale is not None:
                out = ours[part]["out"]
                ours[part]["out"] = {name: tensor * scale for name, tensor in out.items()}
    positions, prefix = found["positions"], []
    if "class_token" in found:
        prefix.append(found.pop("class_token") + positions[:1])
        positions = positions[1:]
    if "registers" in found:
        prefix.append(found.pop("registers"))
    if prefix:
        found["prefix_tokens"] = np.tile(np.concatenate(prefix), (config.windows, 1, 1))
    ours = config.resolution // config.patch
    grid = resampled(positions.reshape(side, side, -1), ours, antialias=registers > 0)
    found["positions"] = np.tile(grid.reshape(ours * ours, -1), (config.windows, 1))
    return found


def unused_parts(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the unused tensors: heads, poolers, a text encoder."""
    kind, checkpoint = _read(checkpoint)
    return spare(checkpoint, kind.prefix, kind.unused)


def places(
    names: _Names, config: VideoConfig, *, positions: int, registers: int, biased: bool
) -> Iterator[Place]:
    """Yield the mapping of every parameter that both encoders have.

    Args:
      names: names of the tensors.
      config: sizes of the video encoder.
      positions: number of patches that have a position.
      registers: number of register tokens.
      biased: True if query, key and value have biases.
    """
    width, heads, hidden = config.width, config.heads, config.mlp_width
    leading = () if names.positions.endswith(".weight") else (1,)
    rows = Layout(lambda x: x.reshape(-1, width), lambda x: x.reshape(*leading, -1, width))
    kernel = (width, 3, config.patch, config.patch)
    yield Place("embed.kernel", f"{names.embed}.weight", kernel, _inflated(config))
    if names.embed_bias:
        yield Place("embed.bias", f"{names.embed}.bias", (width,), SAME)
    if names.class_token:
        positions += 1
        yield Place("class_token", names.class_token, (*leading, *leading, width), rows)
    yield Place("positions", names.positions, (*leading, positions, width), rows)
    if names.registers:
        yield Place("registers", names.registers, (1, registers, width), rows)
    if names.norm_before:
        yield from norm("norm_before", names.norm_before, width)
    for layer in range(1, config.layers + 1):
        ours, theirs = f"layer_{layer}", f"{names.layers}.{layer - 1}"
        yield from norm(f"{ours}.norm_attention", f"{theirs}.{names.norms[0]}", width)
        *inputs, output = names.attention
        for part, name in zip(("query", "key", "value"), inputs, strict=True):
            path, name = f"{ours}.attention.{part}", f"{theirs}.{name}"
            yield Place(f"{path}.kernel", f"{name}.weight", (width, width), heads_last(heads))
            if biased:
                yield Place(f"{path}.bias", f"{name}.bias", (width,), heads_last(heads))
        path, name = f"{ours}.attention.out", f"{theirs}.{output}"
        yield Place(f"{path}.kernel", f"{name}.weight", (width, width), heads_first(heads))
        yield Place(f"{path}.bias", f"{name}.bias", (width,), SAME)
        yield from norm(f"{ours}.norm_mlp", f"{theirs}.{names.norms[1]}", width)
        yield from dense(f"{ours}.mlp.in", f"{theirs}.{names.mlp[0]}", width, hidden)
        yield from dense(f"{ours}.mlp.out", f"{theirs}.{names.mlp[1]}", hidden, width)
        for path, name in zip(("scale_attention", "scale_mlp"), names.scales or (), strict=False):
            yield Place(f"{ours}.{path}", f"{theirs}.{name}", (width,), SAME)
    yield from norm("norm", names.norm, width)


def resampled(
    positions: Float[np.ndarray, "y x d"], side: int, *, antialias: bool
) -> Float[np.ndarray, "side side d"]:
    """Resample a square grid of positions bicubically, as PyTorch's `interpolate` does.

    Without antialiasing PyTorch's cubic has a = −0.75 and repeats the border. With it, the cubic
    has a = −0.5 and weights beyond the border are dropped, as in JAX.

    >>> grid = np.arange(4.0).reshape(2, 2, 1)
    >>> resampled(grid, 2, antialias=False) is grid
    True
    >>> float(resampled(grid, 3, antialias=False)[1, 1, 0])
    1.5
    """
    old = len(positions)
    if old == side:
        return positions
    if antialias:
        grid = jnp.asarray(positions)
        return np.asarray(jax.image.resize(grid, (side, side, grid.shape[-1]), "cubic"))
    a = -0.75
    center = (np.arange(side) + 0.5) * old / side - 0.5
    first = np.floor(center).astype(int)
    weights = np.zeros((side, old))
    for tap in range(-1, 3):
        x = np.abs(center - first - tap)
        inner = ((a + 2) * x - (a + 3)) * x * x + 1
        outer = ((x - 5) * x + 8) * x * a - 4 * a
        place = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(side), place), np.where(x <= 1, inner, outer))
    return np.einsum("iy,jx,yxd->ijd", weights, weights, positions).astype(np.float32)


def _inflated(config: VideoConfig) -> Layout:
    """Return the layout of a 2-D convolution, [O, I, h, w] to tubelets' [t·h·w·I, O]."""
    length = config.tubelet
    over_time = np.full(length, 1 / length, np.float32)
    if config.inflation == "center":
        over_time = np.eye(length, dtype=np.float32)[length // 2]
    flat = tubelet(length, config.patch)
    return Layout(
        lambda x: flat.ours(x[:, :, None] * over_time[:, None, None]),
        lambda x: flat.theirs(x).sum(axis=2),
    )


def _read(checkpoint: Checkpoint) -> tuple[_Kind, Checkpoint]:
    """Return the checkpoint's kind, and the checkpoint with the settings of its image encoder."""
    kind = _KINDS[checkpoint.config["model_type"]]
    if kind.section is None:
        return kind, checkpoint
    section = checkpoint.config.get(kind.section, checkpoint.config)
    if not isinstance(section, dict):
        raise WeightsError(f"{checkpoint.folder / CONFIG}: {kind.section!r} must be an object")
    return kind, checkpoint._replace(config={**kind.defaults, **section})


def _grid(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return the patches along an image's side, and a patch's side in pixels.

    Raises:
      WeightsError: a size is missing or too small.
    """
    side, patch = checkpoint.setting("image_size", int), checkpoint.setting("patch_size", int)
    if not 1 <= patch <= side:
        raise WeightsError(
            f"{checkpoint.folder / CONFIG}: patch_size {patch} must be in 1 … image_size {side}"
        )
    return side // patch, patch  # pixels beyond the last whole patch are ignored


def _registers(kind: _Kind, checkpoint: Checkpoint) -> int:
    return checkpoint.setting("num_register_tokens", int) if kind.names.registers else 0
