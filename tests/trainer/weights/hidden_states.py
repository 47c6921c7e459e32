"""Outputs of this project's encoders with a checkpoint's weights alone.

To be compared with the implementation that the checkpoint comes from: no group tokens, no
projection into the joint space, no final norm that the checkpoint does not have.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from trainer.configs.config import TextConfig, VideoConfig
from trainer.method.models.grouping import assign, gather
from trainer.method.models.text import TextEncoder
from trainer.method.models.video import Block, tubelets
from trainer.weights import bert, image, video
from trainer.weights.hf_format import read


def assert_close(ours, theirs):
    """Equal to 1e-5, and 1e-6 of large values: CPUs sum products in different orders."""
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-6)


def video_states(
    folder: str | os.PathLike[str],
    pixels: Float[Array, "b t h w c"],
    tubelet: int = 1,
    inflation: Literal["mean", "center"] = "mean",
) -> Float[Array, "b n d"]:
    """The last hidden state at every video token.

    Args:
      folder: a checkpoint of a video or an image encoder.
      pixels: [B, T, H, W, C], normalized, square. Positions are resampled for their size.
      tubelet: frames of a tubelet of an image encoder; a video encoder has its own.
      inflation: as in VideoConfig.

    Raises:
      WeightsError: the checkpoint cannot be read or does not fit.
    """
    checkpoint = read(pathlib.Path(folder))
    section = checkpoint.config.get("vision_config", checkpoint.config)
    layers = section.get("num_hidden_layers", 12)
    layout = image if checkpoint.config["model_type"] in image.MODEL_TYPES else video
    config = layout.video_config(
        checkpoint,
        VideoConfig(
            frames=pixels.shape[1],
            resolution=pixels.shape[2],
            tubelet=tubelet,
            patch=1,  # the checkpoint's own follows
            inflation=inflation,
            layers=layers,
            grouping_after=(layers,),
        ),
    )
    params: Any = layout.params(checkpoint, config)
    x = tubelets(pixels, config.tubelet, config.patch)
    x = nn.Dense(config.width).apply({"params": params["embed"]}, x)
    x = jnp.asarray(x).reshape(len(pixels), -1, config.width) + params["positions"][None]
    if "prefix_tokens" in params:
        shape = (len(pixels), *params["prefix_tokens"].shape)
        prefix = jnp.broadcast_to(params["prefix_tokens"], shape).reshape(len(x), -1, config.width)
        x = jnp.concatenate([x, prefix], axis=1)
    if "norm_before" in params:
        x = nn.LayerNorm(config.norm_eps).apply({"params": params["norm_before"]}, x)
    for layer in range(1, config.layers + 1):
        x = Block(config).apply({"params": params[f"layer_{layer}"]}, x)
    if "norm" in params:
        x = nn.LayerNorm(config.norm_eps).apply({"params": params["norm"]}, x)
    return jnp.asarray(x)[:, : config.windows * config.patches]


def text_states(
    folder: str | os.PathLike[str], ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
) -> Float[Array, "b l d"]:
    """The last hidden state at every WordPiece; at padding it means nothing.

    Raises:
      WeightsError: the checkpoint cannot be read or does not fit.
    """
    checkpoint = read(pathlib.Path(folder))
    config = bert.text_config(checkpoint, TextConfig(tokens=ids.shape[1], positions=ids.shape[1]))
    params = jax.tree.map(jnp.asarray, bert.params(checkpoint, config))
    return jnp.asarray(TextEncoder(config).apply({"params": params}, ids, mask))


def group_states(
    weights: Mapping[str, Float[Array, "..."]],
    groups: Float[Array, "b m d"],
    tokens: Float[Array, "b n d"],
    noise: Float[Array, "b m n"] | None = None,
) -> Float[Array, "b m d"]:
    """What groups gather from tokens by GroupViT's assignment, to be differentiated as well.

    That is a grouping block without its norms and its residual (appendix A.2).

    Args:
      weights: {q_proj, k_proj, v_proj, proj}.{weight, bias}, as PyTorch's Linear has them.
      groups: normalized.
      tokens: normalized.
      noise: Gumbel noise, as in training, where gradients pass through the soft assignment; None:
        evaluation.
    """

    def projected(name: str, x: Float[Array, "b k d"]) -> Float[Array, "b k d"]:
        kernel, bias = (jnp.asarray(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return x @ kernel.T + bias[None, None]

    query, key, value = (
        projected("q_proj", groups),
        projected("k_proj", tokens),
        projected("v_proj", tokens),
    )
    logits = jnp.einsum("bmd,bnd->bmn", query, key) * query.shape[-1] ** -0.5
    return projected("proj", gather(assign(logits, noise).hard, value))
