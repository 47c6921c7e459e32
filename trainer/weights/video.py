"""Initialization of the video encoder from ViViT or VideoMAE.

ViViT (Arnab et al. 2021) and VideoMAE (Tong et al. 2022) are plain pre-norm ViTs over tubelets.
Their differences:

                ViViT                                    VideoMAE
    positions   learned; the class token's are dropped   fixed, sines of the token's number
    q, k, v     one bias each                            biases of q and v only. A zero bias of k
                                                         is equivalent: softmax cancels it.
                                                         transformers 5.8 to 5.17 write one
                                                         bias each.
    final norm  yes                                      if `use_mean_pooling` is false, as
                                                         after self-supervised training; else
                                                         none, and it is newly initialized
    pixels      in [-1, 1]                               by ImageNet's mean and deviation

With `qkv_bias` false, neither has biases of q, k or v, and these biases are set to zero. From
transformers 5.18 on, VideoMAE's setting is `qv_bias`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from trainer.configs.config import VideoConfig
from trainer.weights import image, pixel_range
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
    to_tensors,
    tubelet,
)

VIVIT, VIDEOMAE = "vivit", "videomae"
# Defaults for settings that a checkpoint omits.
_NORM_EPS = {VIVIT: 1e-6, VIDEOMAE: 1e-12}
_PIXEL_MEAN = {VIVIT: (0.5, 0.5, 0.5), VIDEOMAE: (0.485, 0.456, 0.406)}
_PIXEL_STD = {VIVIT: (0.5, 0.5, 0.5), VIDEOMAE: (0.229, 0.224, 0.225)}
# The class token, pooler and classifiers, and the decoder with which VideoMAE reconstructs pixels.
_UNUSED = {
    VIVIT: r"embeddings\.cls_token|pooler\..*|classifier\..*",
    VIDEOMAE: r"classifier\..*|fc_norm\..*|decoder\..*|encoder_to_decoder\..*|mask_token|"
    r"position_embeddings",
}
_OWN_BIASES = {part: f"{part}.bias" for part in ("query", "key", "value")}
_SHARED_BIASES = {"query": "q_bias", "value": "v_bias"}
_POSITIONS = "embeddings.position_embeddings"
_WITHOUT_CLASS_TOKEN = Layout(lambda x: x[0, 1:], lambda x: np.pad(x, ((1, 0), (0, 0)))[None])


def video_config(checkpoint: Checkpoint, config: VideoConfig) -> VideoConfig:
    """Return a configuration with the checkpoint's settings and `config`'s frames and resolution.

    Raises:
      WeightsError: the checkpoint is neither ViViT nor VideoMAE, or its sizes conflict.
    """
    kind = _kind(checkpoint)
    _, _, length, patch = _geometry(checkpoint)
    mean, std = pixel_range.scaling(checkpoint, _PIXEL_MEAN[kind], _PIXEL_STD[kind])
    return sized(
        checkpoint,
        config,
        tubelet=length,
        patch=patch,
        width=checkpoint.setting("hidden_size", int),
        layers=checkpoint.setting("num_hidden_layers", int),
        heads=checkpoint.setting("num_attention_heads", int),
        mlp_width=checkpoint.setting("intermediate_size", int),
        norm_eps=checkpoint.setting("layer_norm_eps", float, _NORM_EPS[kind]),
        gelu=gelu(checkpoint),
        pixel_mean=mean,
        pixel_std=std,
    )


def config_warning(checkpoint: Checkpoint) -> str | None:
    """Return a warning about a setting that is known to be wrong; None without one.

    VideoMAE's small encoder was trained with 6 heads of 64. Transformers' conversion script writes
    16 heads, of 24, in its config.json. The tensors' shapes are the same and cannot reveal this.
    """
    config = checkpoint.config
    sizes = (config.get("hidden_size"), config.get("num_attention_heads"))
    if _kind(checkpoint) != VIDEOMAE or sizes != (384, 16):
        return None
    return (
        f"{checkpoint.folder / CONFIG}: num_attention_heads is 16, of 24 numbers each, as in "
        "transformers' conversion of VideoMAE-small, which was trained with 6: if these are its "
        "weights, correct it to 6"
    )


def params(checkpoint: Checkpoint, config: VideoConfig) -> PyTree:
    """Return the video encoder's parameters in the checkpoint.

    Positions are interpolated to `config`'s windows and patches. A checkpoint has no group tokens
    and no grouping blocks. VideoMAE with mean pooling also has no final norm.

    Raises:
      WeightsError: a tensor is missing or unexpected, or has a wrong shape.
    """
    kind = _kind(checkpoint)
    windows, side, _, _ = _geometry(checkpoint)
    expected = list(
        places(
            config,
            biases=_biases(checkpoint, kind),
            normed=kind == VIVIT or not checkpoint.setting("use_mean_pooling", bool, True),
        )
    )
    if kind == VIVIT:
        shape = (1, 1 + windows * side * side, config.width)
        expected.append(Place("positions", _POSITIONS, shape, _WITHOUT_CLASS_TOKEN))
    found = to_params(checkpoint, f"{kind}.", expected, _UNUSED[kind])
    if kind == VIDEOMAE:
        found["positions"] = sinusoids(windows * side * side, config.width)
    for layer in range(1, config.layers + 1):
        for part in ("query", "key", "value"):
            projection = found[f"layer_{layer}"]["attention"][part]
            projection.setdefault("bias", np.zeros(projection["kernel"].shape[1:], np.float32))
    found["positions"] = resampled(found["positions"], windows, side, config)
    return found


def unused_parts(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the unused tensors: heads, the pooler, the class token, a decoder."""
    kind = _kind(checkpoint)
    return spare(checkpoint, f"{kind}.", _UNUSED[kind])


def resampled(
    positions: Float[Any, "n d"], windows: int, side: int, config: VideoConfig
) -> Float[np.ndarray, "m d"]:
    """Resample positions of `windows` × `side`² tokens to `config`'s frames and resolution."""
    grid = jnp.asarray(positions).reshape(windows, side, side, -1)
    ours = config.resolution // config.patch
    return np.asarray(interpolate(grid, config.windows, ours, ours))


def places(
    config: VideoConfig, *, biases: Mapping[str, str] = _OWN_BIASES, normed: bool = True
) -> Iterator[Place]:
    """Yield the mapping of every parameter that both encoders have, except the positions.

    Args:
      config: the sizes.
      biases: names of the existing biases of query, key and value.
      normed: True if the checkpoint has a final norm.
    """
    width, heads, hidden = config.width, config.heads, config.mlp_width
    embed, shape = "embeddings.patch_embeddings.projection", (config.tubelet, config.patch)
    kernel = (width, 3, config.tubelet, config.patch, config.patch)
    yield Place("embed.kernel", f"{embed}.weight", kernel, tubelet(*shape))
    yield Place("embed.bias", f"{embed}.bias", (width,), SAME)
    for layer in range(1, config.layers + 1):
        ours, theirs = f"layer_{layer}", f"encoder.layer.{layer - 1}"
        yield from norm(f"{ours}.norm_attention", f"{theirs}.layernorm_before", width)
        for part in ("query", "key", "value"):
            path, name = f"{ours}.attention.{part}", f"{theirs}.attention.attention"
            kernel = (width, width)
            yield Place(f"{path}.kernel", f"{name}.{part}.weight", kernel, heads_last(heads))
            if bias := biases.get(part):
                yield Place(f"{path}.bias", f"{name}.{bias}", (width,), heads_last(heads))
        path, name = f"{ours}.attention.out", f"{theirs}.attention.output.dense"
        yield Place(f"{path}.kernel", f"{name}.weight", (width, width), heads_first(heads))
        yield Place(f"{path}.bias", f"{name}.bias", (width,), SAME)
        yield from norm(f"{ours}.norm_mlp", f"{theirs}.layernorm_after", width)
        yield from dense(f"{ours}.mlp.in", f"{theirs}.intermediate.dense", width, hidden)
        yield from dense(f"{ours}.mlp.out", f"{theirs}.output.dense", hidden, width)
    if normed:
        yield from norm("norm", "layernorm", width)


def sinusoids(count: int, width: int) -> Float[np.ndarray, "n d"]:
    """Return VideoMAE's positions: sines and cosines of the token's number (Vaswani et al. 2017).

    >>> sinusoids(2, 4).astype(float).round(3).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.841, 0.54, 0.01, 1.0]]
    """
    place = np.arange(width)
    angle = np.arange(count)[:, None] / 10_000 ** (2 * (place // 2) / width)
    return np.where(place % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def interpolate(
    positions: Float[Array, "nt0 y0 x0 d"], windows: int, rows: int, columns: int
) -> Float[Array, "n d"]:
    """Interpolate positions linearly in time and space.

    >>> interpolate(jnp.arange(2.0).reshape(2, 1, 1, 1), 4, 1, 1).ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    shape = (windows, rows, columns, positions.shape[-1])
    if positions.shape == shape:
        return positions.reshape(-1, shape[-1])
    return jax.image.resize(positions, shape, "linear", antialias=False).reshape(-1, shape[-1])


def as_vivit(
    parameters: PyTree, config: VideoConfig, short_side: int
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """Convert the encoder's layers to a ViViT checkpoint: its settings, tensors and other files.

    The encoder has no class token. The layout requires one, which is zero. Another implementation
    attends to it, and its outputs differ slightly. `params` reads the same layers back, bit for
    bit.

    Args:
      parameters: parameters of the video encoder.
      config: sizes of the video encoder.
      short_side: short side of the scaled frames in evaluation, in pixels, before the centre crop.

    Raises:
      WeightsError: the encoder has parts that ViViT lacks.
    """
    if config.prefix_tokens or config.norm_before:
        raise WeightsError(
            f"the video encoder has prefix_tokens={config.prefix_tokens} and norm_before="
            f"{config.norm_before}, from an image encoder, but ViViT has neither: its weights "
            "cannot be exported as ViViT"
        )
    tensors = to_tensors(parameters, places(config))
    positions = np.asarray(parameters["positions"])
    tensors[_POSITIONS] = _WITHOUT_CLASS_TOKEN.theirs(positions)
    tensors["embeddings.cls_token"] = np.zeros((1, 1, config.width), np.float32)
    settings = {
        "architectures": ["VivitModel"],
        "model_type": VIVIT,
        "hidden_act": {"tanh": "gelu_fast", "erf": "gelu", "quick": "quick_gelu"}[config.gelu],
        "hidden_size": config.width,
        "image_size": config.resolution,
        "intermediate_size": config.mlp_width,
        "layer_norm_eps": config.norm_eps,
        "num_attention_heads": config.heads,
        "num_channels": 3,
        "num_frames": config.frames,
        "num_hidden_layers": config.layers,
        "qkv_bias": True,
        "tubelet_size": [config.tubelet, config.patch, config.patch],
    }
    files = pixel_range.processors(
        config.pixel_mean, config.pixel_std, short_side, config.resolution
    )
    return settings, tensors, files


def _kind(checkpoint: Checkpoint) -> str:
    kind = checkpoint.setting("model_type", str)
    if kind not in (VIVIT, VIDEOMAE):
        raise WeightsError(
            f"{checkpoint.folder}: model_type must be one of "
            f"{', '.join((VIVIT, VIDEOMAE, *image.MODEL_TYPES))}, got {kind!r}"
        )
    return kind


def _biases(checkpoint: Checkpoint, kind: str) -> Mapping[str, str]:
    """Return the names of the biases of query, key and value.

    Raises:
      WeightsError: two settings contradict each other.
    """
    said = {
        name: checkpoint.setting(name, bool)
        for name in ("qkv_bias", "qv_bias")
        if checkpoint.config.get(name) is not None
    }
    if len(set(said.values())) > 1:
        raise WeightsError(
            f"{checkpoint.folder / CONFIG}: qkv_bias is {said['qkv_bias']}, but qv_bias "
            f"{said['qv_bias']}: correct the wrong one"
        )
    if False in said.values():
        return {}
    own = any(name.endswith("attention.attention.query.bias") for name in checkpoint.tensors)
    return _OWN_BIASES if kind == VIVIT or own else _SHARED_BIASES


def _geometry(checkpoint: Checkpoint) -> tuple[int, int, int, int]:
    """Return windows, patches along a side, tubelet length in frames and patch size in pixels.

    Raises:
      WeightsError: a size is missing or below 1, or does not divide its total.
    """
    path, patches = checkpoint.folder / CONFIG, "patch_size"
    if _kind(checkpoint) == VIVIT:
        patches, size = "tubelet_size", checkpoint.setting("tubelet_size", list)
        if len(size) != 3 or size[1] != size[2] or not all(type(n) is int for n in size):
            raise WeightsError(f"{path}: tubelet_size {size} is not square")
        length, patch, _ = size
    else:
        length = checkpoint.setting("tubelet_size", int)
        patch = checkpoint.setting("patch_size", int)
    frames, side = checkpoint.setting("num_frames", int), checkpoint.setting("image_size", int)
    for whole, wholes, part, parts in (
        (frames, "num_frames", length, "tubelet_size"),
        (side, "image_size", patch, patches),
    ):
        for value, name in ((part, parts), (whole, wholes)):
            if value < 1:
                raise WeightsError(f"{path}: {name} must be 1 or more, got {value}")
        if whole % part:
            raise WeightsError(f"{path}: {wholes} {whole} must be divisible by {parts} {part}")
    return frames // length, side // patch, length, patch
