"""The video encoder: a ViT over tubelets with group tokens and grouping blocks (section 4.2)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import random
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from trainer.configs.config import ComputeConfig, VideoConfig
from trainer.method.models.attention import Kind, choose
from trainer.method.models.grouping import Assignment, GroupingBlock
from trainer.method.models.transformer import (
    Attention,
    Dense,
    LayerNorm,
    Mlp,
    computed_in,
    gelu,
    normal_init,
    rematerialised,
    shared,
)


class VideoFeatures(NamedTuple):
    """Features of a clip, of width D, before the joint projection."""

    tokens: Float[Array, "b nt s d"]  # video tokens, after the final norm
    groups: Float[Array, "b m d"]  # group tokens, after their own final norm
    assignment: Assignment  # of the last grouping block, over n = nt·s tokens


def tubelets(
    pixels: Float[Array, "b t h w c"], length: int, patch: int
) -> Float[Array, "b nt s p"]:
    """Cut a clip into flattened tubelets of `length` frames by `patch`² pixels.

    Each tubelet is in the order (t, h, w, c), so that one Dense layer equals a 3-D convolution.

    >>> tubelets(jnp.zeros((1, 4, 32, 32, 3)), 2, 16).shape
    (1, 2, 4, 1536)
    """
    b, t, h, w, c = pixels.shape
    x = pixels.reshape(b, t // length, length, h // patch, patch, w // patch, patch, c)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, t // length, (h // patch) * (w // patch), length * patch * patch * c)


def sincos_positions(windows: int, rows: int, columns: int, width: int) -> Float[Array, "n d"]:
    """Return initial positions for training without a checkpoint: sines, cosines of (j, y, x).

    Each coordinate takes a third of the width, in wavelengths from 2π to 200π tokens. So neighbours
    start with similar positions.

    >>> sincos_positions(2, 3, 3, 16).shape
    (18, 16)
    """
    share = 2 * (width // 6)
    tables = []
    for length, part in ((windows, width - 2 * share), (rows, share), (columns, share)):
        frequency = 100.0 ** -jnp.linspace(0.0, 1.0, part // 2)
        angle = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency[None, :]
        tables.append(jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1))
    j, y, x = (table.ravel() for table in jnp.indices((windows, rows, columns)))
    grid = [table[place] for table, place in zip(tables, (j, y, x), strict=True)]
    return 0.5 * jnp.concatenate(grid, axis=1)


def gumbel_noise(
    keys: Key[Array, " b"], block: int, groups: int, tokens: int
) -> Float[Array, "b m n"]:
    """Draw Gumbel noise for a grouping block, each clip's from its own key."""

    def of_clip(key: Key[Array, ""]) -> Float[Array, "m n"]:
        return random.gumbel(random.fold_in(key, block), (groups, tokens))

    return jax.vmap(of_clip)(keys)


class Block(nn.Module):
    """A pre-norm transformer layer."""

    config: VideoConfig
    attention: Kind = "plain"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Add attention, then the perceptron, to the residual stream."""
        c = self.config
        x = x + Attention(c.heads, self.attention, c.attention_block, self.dtype, name="attention")(
            LayerNorm(c.norm_eps, name="norm_attention")(x)
        )
        mlp = Mlp(c.mlp_width, gelu(c.gelu), self.dtype, name="mlp")
        return x + mlp(LayerNorm(c.norm_eps, name="norm_mlp")(x))


class VideoEncoder(nn.Module):
    """Joint space-time attention over video tokens and learned group tokens."""

    config: VideoConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "b t h w c"], keys: Key[Array, " b"] | None
    ) -> VideoFeatures:
        """Encode normalized pixels.

        Args:
          pixels: [B, T, H, W, C], normalized as the checkpoint requires (`normalize`). H and W are
            the configured resolution. Other sizes need `positions` for as many patches.
          keys: one per clip for the Gumbel noise of training; None in evaluation.
        """
        c, dtype = self.config, computed_in(self.compute)
        attention = choose(c, self.compute, jax.default_backend())
        block_of = rematerialised(Block, self.compute.remat)
        grouping_of = rematerialised(GroupingBlock, self.compute.remat)
        x = tubelets(pixels, c.tubelet, c.patch)
        x = Dense(c.width, dtype=dtype, name="embed")(x)
        b, windows, patches, width = x.shape
        x = x.reshape(b, windows * patches, width)
        count = x.shape[1]
        positions = self.param(
            "positions",
            lambda _: sincos_positions(
                windows, pixels.shape[2] // c.patch, pixels.shape[3] // c.patch, width
            ),
        )
        x = x + shared(positions, x.shape, x.dtype)
        g = self.param("group_tokens", normal_init, (c.group_tokens, width))
        g = shared(g, (b, c.group_tokens, width), x.dtype)
        norm_before = LayerNorm(c.norm_eps, name="norm_before") if c.norm_before else None
        x = norm_before(x) if norm_before else x
        prefixes = windows * c.prefix_tokens
        if prefixes:
            prefix = self.param("prefix_tokens", normal_init, (windows, c.prefix_tokens, width))
            prefix = shared(prefix.reshape(prefixes, width), (b, prefixes, width), x.dtype)
            prefix = norm_before(prefix) if norm_before else prefix
            g = jnp.concatenate([prefix, g], axis=1)

        assignment = grouped = None
        for layer in range(1, c.layers + 1):
            block = block_of(c, attention, dtype, name=f"layer_{layer}")
            joined = block(jnp.concatenate([x, g], axis=1))
            x, g = joined[:, :count], joined[:, count:]
            if layer in c.grouping_after:
                noise = None
                if keys is not None:
                    noise = gumbel_noise(keys, layer, c.group_tokens, count)
                group = grouping_of(
                    c.norm_eps,
                    gelu(c.gelu),
                    c.grouping_out,
                    dtype,
                    c.grouping,
                    c.heads,
                    name=f"grouping_{layer}",
                )
                grouped, assignment = group(g[:, prefixes:], x, noise)
                g = jnp.concatenate([g[:, :prefixes], grouped], axis=1) if prefixes else grouped
        assert assignment is not None and grouped is not None  # VideoConfig: the last layer groups

        return VideoFeatures(
            tokens=LayerNorm(c.norm_eps, name="norm")(x).reshape(b, windows, patches, width),
            groups=LayerNorm(c.norm_eps, name="norm_groups")(grouped),
            assignment=assignment,
        )
