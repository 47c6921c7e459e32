"""Encoder outputs that the tasks use, in training and in inference."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt8

from trainer.configs.config import Config
from trainer.method.augment import augment_colour
from trainer.method.models.svilm import SViLM, VideoEmbedding, normalize, standardise
from trainer.method.models.transformer import at_least_float32
from trainer.method.train_step import COLOUR, DROPOUT, GUMBEL, for_purpose


def video_in_training(
    params: PyTree,
    frames: UInt8[Array, "b t h w 3"],
    keys: Key[Array, " b"],
    config: Config,
    *,
    frozen: bool,
) -> VideoEmbedding:
    """Encode clips with augmentation; a frozen encoder gets no Gumbel noise."""
    pixels = augment_colour(frames, for_purpose(keys, COLOUR), config.input)
    embedding: Any = SViLM(config).apply(
        {"params": params},
        standardise(pixels, config.video),
        None if frozen else for_purpose(keys, GUMBEL),
        method="encode_video",
    )
    return embedding


def video_in_use(
    params: PyTree, frames: UInt8[Array, "b t h w 3"], config: Config
) -> VideoEmbedding:
    """Encode clips without augmentation."""
    embedding: Any = SViLM(config).apply(
        {"params": params}, normalize(frames, config.video), method="encode_video"
    )
    return embedding


def question_state(
    params: PyTree, ids: Int[Array, "b l"], mask: Bool[Array, "b l"], config: Config
) -> Float[Array, "b d"]:
    """Return the text encoder's last hidden state at [CLS], before the projection, in float32."""
    state: Any = SViLM(config).apply(
        {"params": params}, ids, mask, method=lambda model, ids, mask: model.text(ids, mask)[:, 0]
    )
    return at_least_float32(state)


def drop(
    x: Float[Array, "b *d"], keys: Key[Array, " b"] | None, rate: float, place: int = 0
) -> Float[Array, "b *d"]:
    """Apply dropout with one key per example, so that it does not depend on the device count.

    Args:
      x: values, one row per example.
      keys: one per example; None disables dropout.
      rate: share of the values to drop.
      place: index of this dropout in a head that has several; each draws its own mask.
    """
    if keys is None or not rate:
        return x

    def kept(key: Key[Array, ""]) -> Bool[Array, "*d"]:
        return random.bernoulli(random.fold_in(key, place), 1.0 - rate, x.shape[1:])

    mask = jax.vmap(kept)(for_purpose(keys, DROPOUT))
    return jnp.where(mask, x / (1.0 - rate), 0.0)


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Pad rows to `size` by repeating the last one, so that compiled functions see one shape.

    >>> padded(np.array([1, 2]), 4).tolist()
    [1, 2, 2, 2]
    """
    return rows[np.minimum(np.arange(size), len(rows) - 1)]


def in_chunks(count: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` items that together cover `count` items.

    >>> list(in_chunks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


@partial(jax.jit, static_argnames="config")
def pooled_groups(
    params: PyTree, frames: UInt8[Array, "b t h w 3"], config: Config
) -> Float[Array, "b m d"]:
    """Return the group tokens of unaugmented clips after the last norm, in float32."""
    return at_least_float32(video_in_use(params, frames, config).features.groups)
