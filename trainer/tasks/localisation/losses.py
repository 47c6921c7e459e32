"""The losses of G-TAD (its section 3.4), with the weights and thresholds of the authors' code."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Key

from trainer.tasks.localisation import align
from trainer.tasks.localisation.gtad import Outputs

_EPSILON = 1e-6
_REGRESSION_WEIGHT = 10.0


class Losses(NamedTuple):
    """The losses of a batch; `total` = boundary + 10 · regression + classification."""

    total: Float[Array, ""]
    boundary: Float[Array, ""]  # the authors' "tem"
    regression: Float[Array, ""]
    classification: Float[Array, ""]


def balanced_cross_entropy(
    probability: Float[Array, "*b"], positive: Bool[Array, "*b"], counted: Bool[Array, "*b"]
) -> Float[Array, ""]:
    """Return the binary cross entropy in which positives and negatives have equal total weight.

    −mean(½r · log p over positives, ½r/(r − 1) · log(1 − p) over negatives), r = N/N⁺. Without
    positives N⁺ counts as 1. Without negatives only the positives contribute.

    Args:
      probability: p.
      positive: True for entries with target 1.
      counted: True for the N valid entries; every positive entry must be valid.

    >>> p, positive = jnp.array([0.5, 0.5]), jnp.array([True, False])
    >>> round(float(balanced_cross_entropy(p, positive, jnp.array([True, True]))), 4)
    0.6931
    """
    n = jnp.sum(counted).astype(probability.dtype)
    n_positive = jnp.maximum(jnp.sum(positive), 1).astype(probability.dtype)
    ratio = n / n_positive
    negatives = jnp.maximum(ratio - 1, jnp.finfo(probability.dtype).eps)
    of_positive = 0.5 * ratio * jnp.log(probability + _EPSILON)
    of_negative = 0.5 * ratio / negatives * jnp.log(1 - probability + _EPSILON)
    terms = jnp.where(positive, of_positive, jnp.where(counted, of_negative, 0))
    return -jnp.sum(terms) / n


def regression(
    predicted: Float[Array, "b d s"],
    true: Float[Array, "b d s"],
    uniform: Float[Array, "2 b d s"],
) -> Float[Array, ""]:
    """Return ½ Σ w (p − g)² / Σ w over a balanced sample of the proposals.

    The sample has all proposals of g > 0.7, and as many of (0.3, 0.7] and of (0, 0.3]. Those of the
    last two classes are drawn: a proposal counts if its number in `uniform` exceeds
    1 − N(g > 0.7)/N(its class). Their numbers are therefore equal on average.

    Args:
      predicted: p.
      true: g, 0 at invalid proposals.
      uniform: random numbers in [0, 1), for the middle class and for the low one.
    """
    high = true > 0.7
    middle = (true > 0.3) & ~high
    low = (true > 0) & ~high & ~middle

    def subset(of: Bool[Array, "b d s"], drawn: Float[Array, "b d s"]) -> Bool[Array, "b d s"]:
        share = jnp.sum(high).astype(drawn.dtype) / jnp.maximum(jnp.sum(of), 1).astype(drawn.dtype)
        return of & (drawn > 1 - share)

    weight = (high | subset(middle, uniform[0]) | subset(low, uniform[1])).astype(predicted.dtype)
    return 0.5 * jnp.sum(weight * jnp.square(predicted - true)) / jnp.maximum(jnp.sum(weight), 1)


def draw(key: Key[Array, ""], videos: int, length: int) -> Float[Array, "2 b d s"]:
    """Draw the random numbers with which `regression` samples proposals."""
    return random.uniform(key, (2, videos, length, length))


def losses(
    outputs: Outputs,
    true_map: Float[Array, "b d s"],
    true_start: Float[Array, "b t"],
    true_end: Float[Array, "b t"],
    uniform: Float[Array, "2 b d s"],
) -> Losses:
    """Return all losses of a batch; positives and negatives are counted over the whole batch.

    Args:
      outputs: outputs of the network.
      true_map: map from `targets`; its values at invalid proposals are ignored.
      true_start: starts from `targets`.
      true_end: ends from `targets`.
      uniform: random numbers from `draw`.
    """
    valid = jnp.broadcast_to(jnp.asarray(align.valid(true_map.shape[1]))[None], true_map.shape)
    true_map = jnp.where(valid, true_map, 0)
    everywhere = jnp.ones_like(true_start, bool)
    boundary = balanced_cross_entropy(
        outputs.start, true_start > 0.5, everywhere
    ) + balanced_cross_entropy(outputs.end, true_end > 0.5, everywhere)
    of_iou = regression(outputs.map[..., 0], true_map, uniform)
    of_class = balanced_cross_entropy(outputs.map[..., 1], true_map > 0.9, valid)
    return Losses(boundary + _REGRESSION_WEIGHT * of_iou + of_class, boundary, of_iou, of_class)
