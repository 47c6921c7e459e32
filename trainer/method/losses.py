"""The three losses, each a pure function (equations 1–7).

Where the paper leaves a choice, the docstring says [reading]. All functions return losses per
clip, so a permutation of the batch permutes them.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from trainer.method.models.svilm import l2_normalize
from trainer.method.models.transformer import at_least_float32


def temporal_grouping(
    tokens: Float[Array, "b nt s d"],
    mask: Bool[Array, "b nt"],
    temperature: Float[Array, ""] | float,
    kind: Literal["mse", "bce"] = "mse",
) -> Float[Array, " b"]:
    """Return L_t, which classifies windows by the foreground and background centres (eq. 1–2).

    Args:
      tokens: video tokens after the final norm.
      mask: m, True at foreground windows. A clip without background has loss 0.
      temperature: τ of eq. 1.
      kind: "mse" as the text says twice, or eq. 2's "bce".

    Returns:
      Each clip's mean over its windows and the two centres.
    """
    a = jax.nn.softmax(window_similarities(tokens, mask) / temperature, axis=-1)
    target = jnp.stack([~mask, mask], axis=-1).astype(a.dtype)
    if kind == "mse":
        cost = jnp.square(a - target)
    else:
        likelihood = jnp.where(target > 0, a, 1.0 - a)
        cost = -jnp.log(jnp.maximum(likelihood, 1e-7))
    return jnp.where(jnp.all(mask, axis=1), 0.0, jnp.mean(cost, axis=(1, 2)))


def window_similarities(
    tokens: Float[Array, "b nt s d"], mask: Bool[Array, "b nt"]
) -> Float[Array, "b nt 2"]:
    """Return cosines of each window's mean token to the centres [z_b; z_f] (eq. 1)."""
    z_clip = jnp.mean(at_least_float32(tokens), axis=2)
    member = jnp.stack([~mask, mask], axis=1).astype(z_clip.dtype)
    size = jnp.sum(member, axis=-1, keepdims=True)
    centres = jnp.einsum("bcn,bnd->bcd", member, z_clip) / jnp.maximum(size, 1.0)
    return jnp.einsum("bnd,bcd->bnc", l2_normalize(z_clip), l2_normalize(centres))


def grounding_similarity(
    groups: Float[Array, "v m e"],
    nouns: Float[Array, "c k e"],
    noun_valid: Bool[Array, "c k"],
    temperature: Float[Array, ""] | float,
    block: int,
) -> Float[Array, "v c"]:
    """Return G(v, c) of eq. 3: how well each noun of a caption matches a group of a video.

    `groups` and `nouns` are L2-normalized, and the pooled vector again [reading]. The mean is over
    the valid nouns, and 0 for a caption without any. Videos are computed `block` at a time, and
    again in the backward pass. So the largest array is [block, c·k, m]. With S = n·g the pooled
    vector's dot with n is Σ σ·S and its squared norm is σᵀ(GGᵀ)σ. So the pooled vectors [v, c·k, e]
    are never formed.
    """
    captions, k, width = nouns.shape
    flat = nouns.reshape(captions * k, width)

    def of_video(g: Float[Array, "m e"]) -> Float[Array, " c"]:
        s = flat @ g.T
        sigma = jax.nn.softmax(s / temperature, axis=-1)
        dot = jnp.sum(sigma * s, axis=-1)
        norm = jnp.sqrt(jnp.maximum(jnp.sum((sigma @ (g @ g.T)) * sigma, axis=-1), 1e-12))
        cosine = (dot / norm).reshape(captions, k)
        total = jnp.sum(jnp.where(noun_valid, cosine, 0.0), axis=-1)
        return total / jnp.maximum(jnp.sum(noun_valid, axis=-1), 1).astype(total.dtype)

    return jax.lax.map(jax.checkpoint(of_video), groups, batch_size=min(block, len(groups)))


def weighted_cross_entropy(
    similarity: Float[Array, "r c"],
    weights: Float[Array, "r c"],
    temperature: Float[Array, ""] | float,
    column_valid: Bool[Array, " c"],
) -> Float[Array, " r"]:
    """Return −Σ_j w_ij log softmax_j(similarity_ij / τ) for each row i (eq. 6 and 7).

    An invalid column is excluded from the softmax, and its weight is dropped [reading].
    """
    logits = jnp.where(column_valid[None, :], similarity / temperature, -jnp.inf)
    # A row whose columns are all invalid would give log(0). It carries no weight.
    logits = jnp.where(jnp.any(column_valid), logits, 0.0)
    log_softmax = jax.nn.log_softmax(logits, axis=-1)
    kept = (weights > 0) & column_valid[None, :]
    return -jnp.sum(jnp.where(kept, weights * jnp.where(kept, log_softmax, 0.0), 0.0), axis=-1)


def alignment(
    similarity: Float[Array, "r c"],
    weights: Float[Array, "r c"],
    temperature: Float[Array, ""] | float,
    caption_valid: Bool[Array, " c"],
    over: tuple[str, ...] = (),
) -> Float[Array, " r"]:
    """Return the sum of both directions of eq. 6 (similarity G) or eq. 7 (similarity s).

    Args:
      similarity: [video, caption].
      weights: W^v of eq. 5.
      temperature: τ.
      caption_valid: False at captions to exclude: their column in v→c, their row in c→v.
      over: mesh axes that shard the videos, if the rows are one device's share.

    Returns:
      The cost of video i's weights in v→c and in c→v. Its mean over all B videos is the loss.
    """
    v2c = weighted_cross_entropy(similarity, weights, temperature, caption_valid)
    to_videos = log_softmax_over_rows(similarity / temperature, over)
    kept = (weights > 0) & caption_valid[None, :]
    return v2c - jnp.sum(jnp.where(kept, weights * to_videos, 0.0), axis=-1)


def log_softmax_over_rows(
    logits: Float[Array, "r c"], over: tuple[str, ...] = ()
) -> Float[Array, "r c"]:
    """Return the log-softmax down each column, whose other rows may be on other devices.

    >>> log_softmax_over_rows(jnp.zeros((4, 1)))[0].round(3).tolist()
    [-1.3860000371932983]
    """
    top = jax.lax.stop_gradient(jnp.max(logits, axis=0, keepdims=True))
    if over:
        top = jax.lax.pmax(top, over)
    total = jnp.sum(jnp.exp(logits - top), axis=0, keepdims=True)
    if over:
        total = jax.lax.psum(total, over)
    return logits - top - jnp.log(total)
