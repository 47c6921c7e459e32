"""What both encoders share: multi-head self-attention and the two-layer perceptron."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

normal_init = nn.initializers.normal(stddev=0.02)
xavier_init = nn.initializers.xavier_uniform()
Dense = partial(nn.Dense, kernel_init=xavier_init)


def gelu(kind: Literal["tanh", "erf"]) -> Callable[[Array], Array]:
    """The GELU that a checkpoint was trained with.

    >>> round(float(gelu("erf")(1.0)), 4), round(float(gelu("tanh")(1.0)), 4)
    (0.8413, 0.8412)
    """
    return partial(nn.gelu, approximate=kind == "tanh")


def attend(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b n h k"],
    value: Float[Array, "b n h k"],
    mask: Bool[Array, "b n"] | None = None,
) -> Float[Array, "b q h k"]:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1), softmax in float32 or wider.

    >>> attend(*jnp.ones((3, 1, 4, 2, 8))).shape
    (1, 4, 2, 8)
    """
    logits = jnp.einsum("bqhk,bnhk->bhqn", query, key) * query.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask[:, None, None, :], logits, jnp.finfo(logits.dtype).min)
    wide = logits.astype(jnp.float32) if logits.dtype == jnp.bfloat16 else logits
    probabilities = jax.nn.softmax(wide, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqn,bnhk->bqhk", probabilities, value)


def attend_by_blocks(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b n h k"],
    value: Float[Array, "b n h k"],
    block: int,
) -> Float[Array, "b n h k"]:
    """Attention for `block` queries at a time, computed again in the backward pass.

    So the largest array is [b, h, block, n]: at the paper's 3168 tokens all probabilities are
    0.5 GB a clip and layer, kept for the backward pass.

    >>> x = jax.random.normal(jax.random.key(0), (1, 5, 2, 4))
    >>> whole = attend(x, x, x)
    >>> bool(jnp.allclose(attend_by_blocks(x, x, x, block=2), whole, atol=1e-6))
    True
    """
    b, n, heads, width = query.shape
    padded = jnp.pad(query, ((0, 0), (0, -n % block), (0, 0), (0, 0)))
    blocks = padded.reshape(b, -1, block, heads, width).swapaxes(0, 1)
    attended = jax.lax.map(jax.checkpoint(lambda queries: attend(queries, key, value)), blocks)
    return attended.swapaxes(0, 1).reshape(b, -1, heads, width)[:, :n]


class SelfAttention(nn.Module):
    """Multi-head self-attention over a sequence, with biases.

    `mask` is False at positions that nobody attends to (padding). With a `block` smaller than the
    sequence, and no mask, memory grows with its length instead of its square.
    """

    heads: int
    block: int | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None = None
    ) -> Float[Array, "b n d"]:
        """Attends, and projects back to the input's width."""
        width = x.shape[-1]

        def project(name: str) -> Float[Array, "b n h k"]:
            return nn.DenseGeneral(
                (self.heads, width // self.heads),
                kernel_init=xavier_init,
                name=name,
            )(x)

        query, key, value = project("query"), project("key"), project("value")
        if mask is None and self.block is not None and self.block < x.shape[1]:
            attended = attend_by_blocks(query, key, value, self.block)
        else:
            attended = attend(query, key, value, mask)
        return nn.DenseGeneral(width, axis=(-2, -1), kernel_init=xavier_init, name="out")(attended)


class Mlp(nn.Module):
    """Dense, GELU, Dense, back to the input's width."""

    hidden: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Maps each vector on its own."""
        hidden = self.activation(Dense(self.hidden, name="in")(x))
        return Dense(x.shape[-1], name="out")(hidden)
