"""The action head on people's boxes, as SlowFast has it: RoIAlign over patches, then a classifier.

Video tokens are averaged over time; each box takes p×p bins of them, of these the greatest by
feature, dropout, one linear layer, a sigmoid an action. Group tokens have no place in the picture,
so that it is the last layer's patches that are taken.

Boxes are x1, y1, x2, y2 in shares of width and height; k of each clip, of which those without area
are none.
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
    """The boxes of a keyframe to train on, and of each which true box's actions it has.

    Args:
      true: annotated ones, all of which are taken.
      detected: those taken that lie on one of these.
      iou: from which on they do.

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
    """The weight of each place of an axis in each bin of boxes, as RoIAlign samples them.

    Aligned, with as many samples a bin as it is long: those of tasks/roi_sampling.py, but on the
    device, since crops move the boxes. A box's ends are half a place less, so that a place's value
    stands at its middle; a box of no length has no weight.

    Args:
      start: of the boxes, in shares of the axis.
      end: of them.
      bins: along a box.
      length: places on the axis.

    >>> bin_weights(jnp.array([[0.0]]), jnp.array([[0.5]]), 1, 4).tolist()
    [[[[0.5, 0.5, 0.0, 0.0]]]]
    """
    low, extent = (start * length - 0.5)[..., None, None], (end - start)[..., None, None] * length
    samples = jnp.maximum(jnp.ceil(extent / bins), 1)
    which = jnp.arange(-(-length // bins), dtype=low.dtype)[None, None, None]  # of the most
    bin_of = jnp.arange(bins, dtype=low.dtype)[None, None, :, None]
    at = low + (bin_of + (which + 0.5) / samples) * (extent / bins)  # [b, k, p, samples]
    share = jnp.where((which < samples) & (extent > 0), 1 / samples, 0)
    places = jnp.arange(length, dtype=low.dtype)[None, None, None, None]
    near = jnp.maximum(1 - jnp.abs(jnp.clip(at, 0, length - 1)[..., None] - places), 0)
    return jnp.sum(share[..., None] * near, axis=3)


def box_features(
    tokens: Float[Array, "b nt rows columns d"], boxes: Float[Array, "b k 4"], bins: int
) -> Float[Array, "b k d"]:
    """What the head classifies of each box.

    Args:
      tokens: of clips, after the encoder's last norm, in their places.
      boxes: of each clip, in shares of what its frames show.
      bins: along each side of a box.
    """
    rows, columns = tokens.shape[2:4]
    down = bin_weights(boxes[..., 1], boxes[..., 3], bins, rows)
    across = bin_weights(boxes[..., 0], boxes[..., 2], bins, columns)
    still = jnp.mean(tokens, axis=1)
    return jnp.max(jnp.einsum("bkpr,brcd,bkqc->bkpqd", down, still, across), axis=(2, 3))


# --- classifier ---


def init_head(key: Key[Array, ""], width: int, actions: int) -> dict[str, Float[Array, "..."]]:
    """A fresh linear layer."""
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
    """Of each action, before the sigmoid.

    Args:
      params: of `init_head`.
      features: of `box_features`.
      dropout: the share that is dropped in training.
      keys: one a clip, in training; None: nothing is dropped.
    """
    return drop(features, keys, dropout) @ params["kernel"] + params["bias"][None, None]


def costs(
    found: Float[Array, "b k actions"], labels: Bool[Array, "b k actions"]
) -> Float[Array, "b k"]:
    """Binary cross entropy of each box, the mean over actions.

    Args:
      found: logits.
      labels: which actions are annotated.

    >>> found = costs(jnp.zeros((1, 2, 80)), jnp.zeros((1, 2, 80), bool))
    >>> [round(float(cost), 4) for cost in found[0]]
    [0.6931, 0.6931]
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(found, labels.astype(found.dtype)), axis=-1)
