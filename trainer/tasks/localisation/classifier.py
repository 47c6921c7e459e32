"""A linear classifier on features averaged over time, used where no class scores are given.

It classifies either whole videos or each proposal by itself. ActivityNet's videos mostly show one
class.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from trainer.finite import finite, finite_tensors

_STEPS = 300
_LEARNING_RATE = 0.01
_L2 = 1e-3


def averaged(
    features: Float[np.ndarray, "t c"], segments: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n c"]:
    """Return the mean features over each segment; it always includes the time at the middle.

    Args:
      features: features at t evenly spaced times.
      segments: starts and ends in shares of the video.

    >>> averaged(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([[0.25, 0.75], [0.9, 0.9]]))
    array([[3.],
           [6.]])
    """
    features, segments = finite("features", features), finite("segments", segments)
    length = len(features)
    middle = (np.arange(length) + 0.5) / length
    inside = (middle >= segments[:, :1]) & (middle < segments[:, 1:])
    at = np.clip((segments.mean(axis=1) * length).astype(int), 0, length - 1)
    inside[np.arange(len(segments)), at] = True
    return inside @ features / inside.sum(axis=1, keepdims=True)


def train(
    rows: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], classes: int
) -> dict[str, np.ndarray]:
    """Fit a multinomial logistic regression with L2 of 1e-3, by 300 full-batch steps of Adam.

    Args:
      rows: averaged features.
      labels: their classes; a segment with two classes has two rows.
      classes: number of classes.

    Returns:
      `mean` and `scale` that standardise the features, `weight` [C, classes] and `bias`.
    """
    rows = finite("features", rows)
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    x = jnp.asarray((rows - mean) / scale, jnp.float32)
    start = {
        "weight": jnp.zeros((rows.shape[1], classes), jnp.float32),
        "bias": jnp.zeros(classes, jnp.float32),
    }
    found = jax.tree.map(np.asarray, _fit(start, x, jnp.asarray(labels)))
    made = {"mean": mean.astype(np.float32), "scale": scale.astype(np.float32)} | found
    finite_tensors("classifier", made)
    return made


@jax.jit
def _fit(start: PyTree, x: Float[Array, "n c"], labels: Int[Array, " n"]) -> PyTree:
    optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, _STEPS))

    def cost(weights: Any) -> Float[Array, ""]:
        logits = x @ weights["weight"] + weights["bias"][None]
        misfit = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(misfit) + _L2 * jnp.sum(jnp.square(weights["weight"]))

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        weights, state = carry
        gradients = jax.grad(cost)(weights)
        with jax.numpy_dtype_promotion("standard"):  # Optax raises a float to an integer power.
            updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=_STEPS)
    return weights


def probabilities(
    weights: dict[str, np.ndarray], rows: Float[np.ndarray, "n c"]
) -> Float[np.ndarray, "n classes"]:
    """Return the probability of each class for averaged features.

    >>> weights = {"mean": np.zeros(1), "scale": np.ones(1), "bias": np.zeros(2)}
    >>> probabilities(weights | {"weight": np.array([[5.0, -5.0]])}, np.array([[1.0]])).round(3)
    array([[1., 0.]])
    """
    finite_tensors("classifier", weights)
    rows = finite("features", rows)
    logits = (rows - weights["mean"]) / weights["scale"] @ weights["weight"] + weights["bias"]
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def examples(
    videos: Sequence[tuple[Float[np.ndarray, "_ c"], Float[np.ndarray, "_ 2"], Sequence[int]]],
    *,
    whole: bool,
) -> tuple[Float[np.ndarray, "n c"], Int[np.ndarray, " n"]]:
    """Return the training rows and labels: one per class of a whole video, or one per action.

    Args:
      videos: for each video, its features, its actions in shares of the video, and their classes.
      whole: True classifies whole videos, False single actions.
    """
    rows, labels = [], []
    for features, segments, classes in videos:
        of_video = sorted(set(classes)) if whole else list(classes)
        at = np.tile([[0.0, 1.0]], (len(of_video), 1)) if whole else segments
        rows.append(averaged(features, at))
        labels.extend(of_video)
    return np.concatenate(rows), np.array(labels, int)
