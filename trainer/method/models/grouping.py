"""The grouping block: group tokens gather the video tokens assigned to them (appendix A.2)."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from trainer.method.models.transformer import Attention, Dense, LayerNorm, Mlp, xavier_init


class Assignment(NamedTuple):
    """Assignment of each video token to a group; both arrays sum to 1 over groups."""

    hard: Float[Array, "b m n"]
    soft: Float[Array, "b m n"]


def assign(logits: Float[Array, "b m n"], noise: Float[Array, "b m n"] | None = None) -> Assignment:
    """Assign each token to one group: softmax over groups, hardened to one-hot.

    With Gumbel `noise` (training), gradients pass straight through to the soft assignment.
    Without it (evaluation), the assignment is the plain argmax. Source: appendix A.2.

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
    """Return each group's sum of values over its size + 1, so that an empty group gives 0.

    The result has the assignment's type. Source: appendix A.2, with GroupViT's `+1`.
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
    """Block that updates group tokens from video tokens; the video tokens stay unchanged.

    The kind "groupvit" is GroupViT's own block (Xu et al. 2022, section 3.2, as published). It
    first mixes the group tokens and updates the mixed tokens. The kind "kmax" assigns tokens as
    kMaX-DeepLab does (Yu et al. 2022, eq. 7): to the most similar group, without noise. So the
    similarities get no gradient, for which kMaX has a mask loss. (kMaX sums values and normalizes
    over the batch. Here a group's sum is divided by its size + 1 for this kind too.)
    """

    norm_eps: float
    activation: Callable[[Array], Array]
    out: Literal["zeros", "xavier"] = "zeros"  # initializer of Wo: VideoConfig.grouping_out
    dtype: DTypeLike | None = None
    kind: Literal["svilm", "groupvit", "kmax"] = "svilm"
    heads: int = 1  # of the attention before GroupViT's assignment

    @nn.compact
    def __call__(
        self,
        groups: Float[Array, "b m d"],
        tokens: Float[Array, "b n d"],
        noise: Float[Array, "b m n"] | None,
    ) -> tuple[Float[Array, "b m d"], Assignment]:
        """Return the updated group tokens, and the assignment of video tokens to them."""
        width = groups.shape[-1]
        g = LayerNorm(self.norm_eps, name="norm_groups")(groups)
        x = LayerNorm(self.norm_eps, name="norm_tokens")(tokens)
        if self.kind == "groupvit":
            groups = g = Mixing(
                self.norm_eps, self.activation, self.heads, self.dtype, name="mixing"
            )(g, x)
        q = Dense(width, dtype=self.dtype, name="query")(g)
        k = Dense(width, dtype=self.dtype, name="key")(x)
        v = Dense(width, dtype=self.dtype, name="value")(x)
        wide = jnp.float32 if q.dtype == jnp.bfloat16 else q.dtype
        logits = jnp.einsum("bmd,bnd->bmn", q, k, preferred_element_type=wide) * width**-0.5
        assignment = assign(logits, None if self.kind == "kmax" else noise)
        gathered = gather(assignment.hard, v)
        out_init = nn.initializers.zeros if self.out == "zeros" else xavier_init
        groups = groups + Dense(width, kernel_init=out_init, dtype=self.dtype, name="out")(
            gathered.astype(groups.dtype)
        )
        mlp = Mlp(4 * width, self.activation, self.dtype, name="mlp")
        groups = groups + mlp(LayerNorm(self.norm_eps, name="norm_mlp")(groups))
        return groups, assignment


class Mixing(nn.Module):
    """GroupViT's update of the group tokens before tokens are assigned to them.

    A perceptron over groups, for each channel, mixes the group tokens. Then they attend to the
    video tokens.
    """

    norm_eps: float
    activation: Callable[[Array], Array]
    heads: int
    dtype: DTypeLike | None

    @nn.compact
    def __call__(
        self, groups: Float[Array, "b m d"], tokens: Float[Array, "b n d"]
    ) -> Float[Array, "b m d"]:
        """Return the mixed group tokens; both inputs must be normalized already."""
        width = groups.shape[-1]
        mix = Mlp(width // 2, self.activation, self.dtype, name="mix")
        g = mix(groups.swapaxes(1, 2)).swapaxes(1, 2)
        g = LayerNorm(self.norm_eps, name="norm_mixed")(g)
        g = g + Attention(self.heads, dtype=self.dtype, name="attention")(g, context=tokens)
        mlp = Mlp(4 * width, self.activation, self.dtype, name="mlp")
        g = g + mlp(LayerNorm(self.norm_eps, name="norm_mlp")(g))
        return LayerNorm(self.norm_eps, name="norm_attended")(g)
