"""Layers that both encoders share: self-attention and perceptron, and their computation types.

Encoders call their layers one after another. They do not scan over parameters stacked by layer. So
each layer's parameters keep their name, grouping blocks can stand between layers, and the compiler
counts every layer's FLOPs. The cost is compile time. The paper's step for a TPU slice
takes 2 to 7 minutes on a CPU (`compile_seconds` in benchmarks/results/fit.json).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Key

from trainer.configs.config import ComputeConfig, Gelu
from trainer.method.models.attention import ATTENDED, Kind, attend, attention

Remat = Literal["none", "matmuls", "attention", "block"]

normal_init = nn.initializers.normal(stddev=0.02)
xavier_init = nn.initializers.xavier_uniform()


def gelu(kind: Gelu) -> Callable[[Array], Array]:
    """Return the GELU variant that a checkpoint was trained with.

    >>> [round(float(gelu(kind)(jnp.float32(1))), 4) for kind in ("erf", "tanh", "quick")]
    [0.8413, 0.8412, 0.8458]
    """
    if kind == "quick":  # CLIP's
        return lambda x: x * nn.sigmoid(1.702 * x)
    return partial(nn.gelu, approximate=kind == "tanh")


def at_least_float32(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Convert bfloat16 to float32; wider types stay.

    >>> at_least_float32(jnp.ones(1, jnp.bfloat16)).dtype
    dtype('float32')
    """
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def shared(parameter: ArrayLike, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """Broadcast a parameter to `shape`, whose leading axes are those of the batch.

    The parameter is rounded to `dtype` after the broadcast, not before. So its gradient, a sum over
    the batch and over devices, accumulates in the parameter's own float32.

    >>> def total(bias: Array) -> Array:
    ...     return jnp.sum(shared(bias, (1001, 1), jnp.bfloat16), dtype=jnp.float32)
    >>> jax.grad(total)(jnp.zeros(1)).tolist()  # bfloat16 has no 1001
    [1001.0]
    """
    return jnp.broadcast_to(parameter, shape).astype(dtype)


def computed_in(config: ComputeConfig) -> DTypeLike | None:
    """Return the computation type of Flax's layers; None keeps that of parameters and input."""
    return jnp.bfloat16 if config.dtype == "bfloat16" else None


def rematerialised(layer: type[nn.Module], remat: Remat) -> type[nn.Module]:
    """Return a layer that keeps for its backward pass what `ComputeConfig.remat` selects."""
    if remat == "none":
        return layer
    attended = jax.checkpoint_policies.save_only_these_names(ATTENDED)
    keeps = {
        "block": jax.checkpoint_policies.nothing_saveable,
        "attention": attended,
        "matmuls": jax.checkpoint_policies.save_from_both_policies(
            jax.checkpoint_policies.dots_with_no_batch_dims_saveable, attended
        ),
    }
    return nn.remat(layer, policy=keeps[remat])


class Dense(nn.Module):
    """Flax's `DenseGeneral` over the last axes, with a `shared` bias."""

    features: int | tuple[int, ...]
    axes: int = 1  # number of the input's last axes that the kernel contracts
    kernel_init: nn.initializers.Initializer = xavier_init
    dtype: DTypeLike | None = None
    precision: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Map the last `axes` axes to `features`."""
        taken = x.shape[-self.axes :]
        features = (self.features,) if isinstance(self.features, int) else self.features

        def init(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
            matrix = self.kernel_init(key, (math.prod(taken), math.prod(features)))
            return matrix.reshape(shape)

        kernel = self.param("kernel", init, taken + features)
        bias = self.param("bias", nn.initializers.zeros, features)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = jnp.tensordot(x, kernel, self.axes, precision=self.precision)
        return y + shared(bias, y.shape, y.dtype)


class LayerNorm(nn.LayerNorm):
    """Flax's LayerNorm, computed in float32 or wider; the output has the input's type."""

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Normalize each vector independently."""
        return super().__call__(at_least_float32(x)).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head attention with biases, of a sequence to itself or to another.

    `mask` is False at positions to ignore (padding). With a mask, or with another sequence
    (`context`), the plain implementation is used.
    """

    heads: int
    kind: Kind = "plain"
    block: int | None = None  # block size of "blocked": trainer/method/models/attention.py
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q d"],
        mask: Bool[Array, "b n"] | None = None,
        context: Float[Array, "b n d"] | None = None,
    ) -> Float[Array, "b q d"]:
        """Attend, and project back to the input's width."""
        width = x.shape[-1]
        attended_to = x if context is None else context

        def project(name: str, x: Float[Array, "b l d"]) -> Float[Array, "b l h k"]:
            heads = (self.heads, width // self.heads)
            return Dense(heads, dtype=self.dtype, name=name)(x)

        query = project("query", x)
        key, value = project("key", attended_to), project("value", attended_to)
        if mask is None and context is None:
            attended = attention(query, key, value, self.kind, self.block)
        else:
            attended = attend(query, key, value, mask)
        return Dense(width, axes=2, dtype=self.dtype, name="out")(attended)


class Mlp(nn.Module):
    """Perceptron: Dense, GELU, Dense, back to the input's width."""

    hidden: int
    activation: Callable[[Array], Array]
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Map each vector independently."""
        hidden = self.activation(Dense(self.hidden, dtype=self.dtype, name="in")(x))
        return Dense(x.shape[-1], dtype=self.dtype, name="out")(hidden)
