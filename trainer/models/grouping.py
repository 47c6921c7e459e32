"""The grouping block: group tokens gather the video tokens assigned to them (appendix A.2)."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from trainer.models.transformer import Dense, LayerNorm, Mlp, xavier_init


class Assignment(NamedTuple):
    """Which group each video token belongs to; both sum to 1 over groups."""

    hard: Float[Array, "b m n"]
    soft: Float[Array, "b m n"]


def assign(logits: Float[Array, "b m n"], noise: Float[Array, "b m n"] | None = None) -> Assignment:
    """Assigns each token to one group: softmax over groups, hardened to one-hot.

    With Gumbel `noise` (training) gradients pass straight through to the soft assignment;
    without (evaluation) it is the plain argmax. Source: appendix A.2.

    >>> assign(jnp.array([[[2.0, 0.0], [1.0, 3.0]]])).hard.tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    soft = jax.nn.softmax(logits if noise is None else logits + noise, axis=-2)
    groups = logits.shape[-2]
    hard = jax.nn.one_hot(jnp.argmax(soft, axis=-2), groups, axis=-2, dtype=soft.dtype)
    if noise is not None:
        hard = hard - stop_gradient(soft) + soft
    return Assignment(hard, soft)


def gather(
    assignment: Float[Array, "b m n"], values: Float[Array, "b n d"]
) -> Float[Array, "b m d"]:
    """Each group's sum of values over its size + 1, so that an empty group gathers 0.

    In the assignment's type. Source: appendix A.2, with GroupViT's `+1`.
    """
    sizes = jnp.sum(assignment, axis=-1, keepdims=True)
    sums = jnp.einsum(
        "bmn,bnd->bmd",
        assignment.astype(values.dtype),
        values,
        preferred_element_type=assignment.dtype,
    )
    return sums / (sizes + 1.0)


class GroupingBlock(nn.Module):
    """Updates group tokens from video tokens; the video tokens pass on unchanged."""

    norm_eps: float
    activation: Callable[[Array], Array]
    out: Literal["zeros", "xavier"] = "zeros"  # how Wo starts: VideoConfig.grouping_out
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        groups: Float[Array, "b m d"],
        tokens: Float[Array, "b n d"],
        noise: Float[Array, "b m n"] | None,
    ) -> tuple[Float[Array, "b m d"], Assignment]:
        """Returns the updated group tokens, and who was assigned to them."""
        width = groups.shape[-1]
        g = LayerNorm(self.norm_eps, name="norm_groups")(groups)
        x = LayerNorm(self.norm_eps, name="norm_tokens")(tokens)
        q = Dense(width, dtype=self.dtype, name="query")(g)
        k = Dense(width, dtype=self.dtype, name="key")(x)
        v = Dense(width, dtype=self.dtype, name="value")(x)
        wide = jnp.float32 if q.dtype == jnp.bfloat16 else q.dtype
        logits = jnp.einsum("bmd,bnd->bmn", q, k, preferred_element_type=wide) * width**-0.5
        assignment = assign(logits, noise)
        gathered = gather(assignment.hard, v)
        out_init = nn.initializers.zeros if self.out == "zeros" else xavier_init
        groups = groups + nn.Dense(width, kernel_init=out_init, dtype=self.dtype, name="out")(
            gathered.astype(groups.dtype)
        )
        mlp = Mlp(4 * width, self.activation, self.dtype, name="mlp")
        groups = groups + mlp(LayerNorm(self.norm_eps, name="norm_mlp")(groups))
        return groups, assignment
