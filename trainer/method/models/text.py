"""The text encoder: BERT (Devlin et al. 2019), with the structure of its published checkpoints."""

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from trainer.configs.config import ComputeConfig, TextConfig
from trainer.method.models.transformer import (
    Attention,
    LayerNorm,
    Mlp,
    computed_in,
    gelu,
    normal_init,
    rematerialised,
)


class Block(nn.Module):
    """A post-norm transformer layer."""

    config: TextConfig
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Add attention, then the perceptron, normalizing after each."""
        c = self.config
        attended = Attention(c.heads, dtype=self.dtype, name="attention")(x, mask)
        x = LayerNorm(c.norm_eps, name="norm_attention")(x + attended)
        hidden = Mlp(c.mlp_width, gelu("erf"), self.dtype, name="mlp")(x)
        return LayerNorm(c.norm_eps, name="norm_mlp")(x + hidden)


class TextEncoder(nn.Module):
    """Encoder of WordPiece ids; it returns the last hidden state, whose position 0 is [CLS]."""

    config: TextConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Encode padded sequences.

        Args:
          ids: [B, L] WordPiece ids.
          mask: [B, L], False at padding.
        """
        c = self.config
        words = self.param("words", normal_init, (c.vocabulary, c.width))
        positions = self.param("positions", normal_init, (c.positions, c.width))
        # A sequence is one sentence, so only the first of the two token types is used.
        types = self.param("types", normal_init, (2, c.width))
        x = words[ids] + positions[None, : ids.shape[1]] + types[None, :1]
        dtype, layer_of = computed_in(self.compute), rematerialised(Block, self.compute.remat)
        x = LayerNorm(c.norm_eps, name="norm")(x).astype(dtype or x.dtype)
        for layer in range(1, c.layers + 1):
            x = layer_of(c, dtype, name=f"layer_{layer}")(x, mask)
        return x
