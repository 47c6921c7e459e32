"""The action head on people's boxes, as in SlowFast: RoIAlign over patches, then a classifier.

Video tokens are averaged over time. RoIAlign samples p×p bins per box, and the maximum over the
bins is taken per feature. Dropout, one linear layer and one sigmoid per action follow. The head
uses the last layer's patches, since group tokens have no position in the picture.

Boxes are x1, y1, x2, y2 in shares of width and height. Each clip has k of them; boxes without area
are padding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from trainer.evaluation.box_detection import box_iou
from trainer.tasks.encoders import drop

_INIT_STD = 0.01  # SlowFast's


def trained_on(
    true: Float[np.ndarray, "g 4"], detected: Float[np.ndarray, "d 4"], iou: float
) -> tuple[Float[np.ndarray, "n 4"], Int[np.ndarray, " n"]]:
    """Return a keyframe's training boxes and, for each, the index of the true box it matches.

    Args:
      true: annotated boxes; all are returned.
      detected: a detector's boxes; only those that match a true box are returned.
      iou: minimum IoU of a match.

    >>> true = np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    >>> trained_on(true, np.array([[0.51, 0.0, 1.0, 1.0], [0.2, 0.0, 0.7, 1.0]]), 0.9)[1]
    array([0, 1, 1])
    """
    overlap = box_iou(detected, true)
    if not overlap.size:
        return true, np.arange(len(true))
    close = np.max(overlap, axis=1) >= iou
    nearest = np.argmax(overlap, axis=1)[close]
    return np.concatenate([true, detected[close]]), np.concatenate([np.arange(len(true)), nearest])


# --- features ---


def bin_weights(
    start: Float[Array, "b k"], end: Float[Array, "b k"], bins: int, length: int
) -> Float[Array, "b k p length"]:
    """Return each position's weight in each bin of boxes along one axis, as in RoIAlign.

    Samples are aligned, and a bin has as many samples as it is long, rounded up. They are those of
    trainer/tasks/roi_sampling.py, computed on the device, since crops move the boxes. A box is
    shifted by −½ position, so that a position's value stands at its middle. An empty box has
    weights 0.

    Args:
      start: starts of the boxes, in shares of the axis.
      end: ends of the boxes, in shares of the axis.
      bins: number of bins along a box.
      length: number of positions on the axis.

    >>> bin_weights(jnp.array([[0.0]]), jnp.array([[0.5]]), 1, 4).tolist()
    [[[[0.5, 0.5, 0.0, 0.0]]]]
    """
    low, extent = (start * length - 0.5)[..., None, None], (end - start)[..., None, None] * length
    samples = jnp.maximum(jnp.ceil(extent / bins), 1)
    which = jnp.arange(-(-length // bins), dtype=low.dtype)[None, None, None]  # the maximum count
    bin_of = jnp.arange(bins, dtype=low.dtype)[None, None, :, None]
    at = low + (bin_of + (which + 0.5) / samples) * (extent / bins)  # [b, k, p, samples]
    share = jnp.where((which < samples) & (extent > 0), 1 / samples, 0)
    places = jnp.arange(length, dtype=low.dtype)[None, None, None, None]
    near = jnp.maximum(1 - jnp.abs(jnp.clip(at, 0, length - 1)[..., None] - places), 0)
    return jnp.sum(share[..., None] * near, axis=3)


def box_features(
    tokens: Float[Array, "b nt rows columns d"], boxes: Float[Array, "b k 4"], bins: int
) -> Float[Array, "b k d"]:
    """Return the feature vector of each box.

    Args:
      tokens: the clips' video tokens after the encoder's last norm, by window, row and column.
      boxes: boxes of each clip, in shares of its frames' width and height.
      bins: number of bins along each side of a box.
    """
    rows, columns = tokens.shape[2:4]
    down = bin_weights(boxes[..., 1], boxes[..., 3], bins, rows)
    across = bin_weights(boxes[..., 0], boxes[..., 2], bins, columns)
    still = jnp.mean(tokens, axis=1)
    return jnp.max(jnp.einsum("bkpr,brcd,bkqc->bkpqd", down, still, across), axis=(2, 3))


# --- classifier ---


def init_head(key: Key[Array, ""], width: int, actions: int) -> dict[str, Float[Array, "..."]]:
    """Initialize the linear layer."""
    return {
        "kernel": _INIT_STD * jax.random.normal(key, (width, actions)),
        "bias": jnp.zeros(actions),
    }


def logits(
    params: PyTree,
    features: Float[Array, "b k d"],
    dropout: float = 0.0,
    keys: Key[Array, " b"] | None = None,
) -> Float[Array, "b k actions"]:
    """Return the logit of each action for each box, before the sigmoid.

    Args:
      params: parameters from `init_head`.
      features: features from `box_features`.
      dropout: share of the features to drop in training.
      keys: one per clip in training; None disables dropout.
    """
    return drop(features, keys, dropout) @ params["kernel"] + params["bias"][None, None]


def costs(
    found: Float[Array, "b k actions"], labels: Bool[Array, "b k actions"]
) -> Float[Array, "b k"]:
    """Return the binary cross entropy of each box, averaged over actions.

    Args:
      found: logits.
      labels: True for the annotated actions.

    >>> found = costs(jnp.zeros((1, 2, 80)), jnp.zeros((1, 2, 80), bool))
    >>> [round(float(cost), 4) for cost in found[0]]
    [0.6931, 0.6931]
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(found, labels.astype(found.dtype)), axis=-1)
