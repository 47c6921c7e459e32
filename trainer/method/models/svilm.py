"""S-ViLM: both encoders and their projections into the joint space (Figure 1)."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from trainer.configs.config import Config, VideoConfig
from trainer.method.models.text import TextEncoder
from trainer.method.models.transformer import Dense, at_least_float32
from trainer.method.models.video import VideoEncoder, VideoFeatures


class VideoEmbedding(NamedTuple):
    """A clip in the joint space, and the features it came from. All L2-normalized."""

    clip: Float[Array, "b e"]  # f^v: mean of the projected group tokens
    groups: Float[Array, "b m e"]  # g^m
    features: VideoFeatures


def l2_normalize(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Divide by the L2 norm over the last axis; a zero vector stays zero, with zero gradient.

    >>> l2_normalize(jnp.array([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(squared, jnp.finfo(x.dtype).tiny))


def normalize(frames: UInt8[Array, "*b c"], config: VideoConfig) -> Float[Array, "*b c"]:
    """Convert uint8 pixels to the normalized input of the encoder's checkpoint.

    >>> normalize(jnp.array([[0, 255, 255]], jnp.uint8), VideoConfig()).tolist()
    [[-1.0, 1.0, 1.0]]
    """
    return standardise(frames.astype(jnp.float32) / 255.0, config)


def standardise(pixels: Float[Array, "*b c"], config: VideoConfig) -> Float[Array, "*b c"]:
    """Subtract the checkpoint's pixel mean and divide by its standard deviation."""
    channels = (1,) * (pixels.ndim - 1) + (pixels.shape[-1],)
    mean = jnp.asarray(config.pixel_mean, pixels.dtype).reshape(channels)
    std = jnp.asarray(config.pixel_std, pixels.dtype).reshape(channels)
    return (pixels - mean) / std


class SViLM(nn.Module):
    """Dual encoder. Use `encode_video` and `encode_text` through `apply(method=…)`."""

    config: Config

    def setup(self) -> None:
        """Define the encoders and the projections."""
        self.video = VideoEncoder(self.config.video, self.config.compute)
        self.text = TextEncoder(self.config.text, self.config.compute)
        # The outputs go into cosines, so they need float32 products. Accelerators would round them.
        self.project_video = Dense(self.config.joint_width, precision="highest")
        self.project_text = Dense(self.config.joint_width, precision="highest")

    def encode_video(
        self, pixels: Float[Array, "b t h w c"], keys: Key[Array, " b"] | None = None
    ) -> VideoEmbedding:
        """Embed clips of normalized pixels; `keys` (one per clip) enable Gumbel noise."""
        features = self.video(pixels, keys)
        projected = self.project_video(at_least_float32(features.groups))
        return VideoEmbedding(
            clip=l2_normalize(jnp.mean(projected, axis=1)),
            groups=l2_normalize(projected),
            features=features,
        )

    def encode_text(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b e"]:
        """Embed captions (f^c) or prompted nouns (n^k): the projection at [CLS]."""
        return l2_normalize(self.project_text(at_least_float32(self.text(ids, mask)[:, 0])))

    def __call__(
        self,
        pixels: Float[Array, "b t h w c"],
        ids: Int[Array, "n l"],
        mask: Bool[Array, "n l"],
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[VideoEmbedding, Float[Array, "n e"]]:
        """Apply both encoders, as training does."""
        return self.encode_video(pixels, keys), self.encode_text(ids, mask)
