"""Colour augmentation on the device, the same for all frames of a clip (section 4.2)."""

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Key, UInt8

from trainer.configs.config import InputConfig

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def grey(pixels: Float[Array, "*b 3"]) -> Float[Array, "*b 1"]:
    """Return the luma of each pixel by ITU-R BT.601.

    >>> round(float(grey(jnp.ones((1, 3)))[0, 0]), 3)
    1.0
    """
    return jnp.dot(pixels, jnp.asarray(_LUMA, pixels.dtype))[..., None]


def rotate_hue(pixels: Float[Array, "*b 3"], turn: Float[Array, ""]) -> Float[Array, "*b 3"]:
    """Rotate chroma by `turn` of a full circle around the grey axis, in YIQ space."""
    to_yiq = jnp.array([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], pixels.dtype)
    cos, sin = jnp.cos(2 * jnp.pi * turn), jnp.sin(2 * jnp.pi * turn)
    zero, one = jnp.zeros_like(turn), jnp.ones_like(turn)
    rotation = jnp.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos]).reshape(3, 3)
    return jnp.dot(pixels, (jnp.linalg.inv(to_yiq) @ rotation @ to_yiq).T)


def _jitter(
    pixels: Float[Array, "t h w 3"], key: Key[Array, ""], config: InputConfig
) -> Float[Array, "t h w 3"]:
    for_brightness, for_contrast, for_saturation, for_hue = random.split(key, 4)
    pixels += random.uniform(for_brightness, (), minval=-1.0) * config.brightness
    contrast = 1.0 + random.uniform(for_contrast, (), minval=-1.0) * config.contrast
    pixels = (pixels - jnp.mean(pixels)) * contrast + jnp.mean(pixels)
    saturation = 1.0 + random.uniform(for_saturation, (), minval=-1.0) * config.saturation
    luma = grey(pixels)
    pixels = luma + (pixels - luma) * saturation
    pixels = rotate_hue(pixels, random.uniform(for_hue, (), minval=-1.0) * config.hue)
    return jnp.clip(pixels, 0.0, 1.0)


def augment_colour(
    frames: UInt8[Array, "b t h w 3"], keys: Key[Array, " b"], config: InputConfig
) -> Float[Array, "b t h w 3"]:
    """Jitter brightness, contrast, saturation and hue, then drop colour, each with a probability.

    The returned pixels are in [0, 1]. With both probabilities 0 the pixels are only converted.
    """
    pixels = frames.astype(jnp.float32) / 255.0

    def of_clip(clip: Float[Array, "t h w 3"], key: Key[Array, ""]) -> Float[Array, "t h w 3"]:
        for_jitter, if_jitter, if_grey = random.split(key, 3)
        if config.jitter_probability > 0:
            jittered: Bool[Array, ""] = random.bernoulli(if_jitter, config.jitter_probability)
            clip = jnp.where(jittered, _jitter(clip, for_jitter, config), clip)
        if config.grey_probability > 0:
            greyed: Bool[Array, ""] = random.bernoulli(if_grey, config.grey_probability)
            clip = jnp.where(greyed, grey(clip), clip)
        return clip

    if config.jitter_probability == 0 and config.grey_probability == 0:
        return pixels
    return jax.vmap(of_clip)(pixels, keys)
