"""The fusion of video and question, and the classifier of answers, after BUTD.

Bottom-up and top-down attention (Anderson et al. 2018) as implemented in hengyuan-hu/
bottom-up-attention-vqa, which weight-normalizes every linear layer as a whole. Group tokens v_k
replace the detected regions. The question q is the text encoder's [CLS].

  a_k = softmax_k( w · drop( f_v(v_k) ∘ f_q(q) ) )      f(x) = ReLU(W x + b), W = g V / ‖V‖
  v̂ = Σ_k a_k v_k
  h = f'_q(q) ∘ f'_v(v̂)
  logits = W_2 drop( ReLU(W_1 h + b_1) ) + b_2           W_1 twice as wide as h
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from trainer.tasks.encoders import drop

# PyTorch's initialization of a linear layer: U(−1/√n, 1/√n) for n inputs.
_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class NormDense(nn.Module):
    """A linear layer of W = g V / ‖V‖: one scale g, and the Frobenius norm of the whole matrix."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b w"]:
        """Return W x + b; at initialization W = V."""
        direction = self.param("kernel", _uniform, (x.shape[-1], self.width))
        # The initial scale is the kernel's norm. Afterwards it is an independent parameter.
        scale = self.param("scale", lambda _: jnp.linalg.norm(direction))
        bias: Any = self.param("bias", nn.initializers.zeros, (self.width,))
        y = x @ (direction * (scale / jnp.linalg.norm(direction)))
        return y + bias.reshape((1,) * (y.ndim - 1) + (self.width,))


class Attention(nn.Module):
    """The weights a_k of a clip's group tokens (`newatt` in that code)."""

    width: int
    dropout: float

    @nn.compact
    def __call__(
        self,
        groups: Float[Array, "b k d"],
        question: Float[Array, "b q"],
        keys: Key[Array, " b"] | None,
    ) -> Float[Array, "b k"]:
        """Return the weights a_k, which sum to 1 over k."""
        v = jax.nn.relu(NormDense(self.width, name="video")(groups))
        q = jax.nn.relu(NormDense(self.width, name="question")(question))
        joint = drop(v * q[:, None], keys, self.dropout, place=0)
        return jax.nn.softmax(NormDense(1, name="weight")(joint)[..., 0], axis=-1)


class Head(nn.Module):
    """The fusion and the classifier."""

    answers: int
    width: int  # width of the fused vector
    fusion: Literal["butd", "linear"] = "butd"
    attention_dropout: float = 0.2  # that code's value
    dropout: float = 0.5  # dropout of the classifier's hidden layer

    @nn.compact
    def __call__(
        self,
        groups: Float[Array, "b k d"],
        question: Float[Array, "b q"],
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b c"]:
        """Return the logits of the answers.

        With the fusion "linear", the mean of the group tokens represents the clip, and h is the
        product of two linear projections.

        Args:
          groups: v_k.
          question: q.
          keys: dropout keys, one per example; None in inference.
        """
        if self.fusion == "butd":
            attention = Attention(self.width, self.attention_dropout, name="attention")
            weights = attention(groups, question, keys)
            video = jnp.einsum("bk,bkd->bd", weights, groups)
            v = jax.nn.relu(NormDense(self.width, name="video")(video))
            q = jax.nn.relu(NormDense(self.width, name="question")(question))
        else:
            v = nn.Dense(self.width, name="video")(jnp.mean(groups, axis=1))
            q = nn.Dense(self.width, name="question")(question)
        hidden = jax.nn.relu(NormDense(2 * self.width, name="hidden")(v * q))
        return NormDense(self.answers, name="answer")(drop(hidden, keys, self.dropout, place=1))
