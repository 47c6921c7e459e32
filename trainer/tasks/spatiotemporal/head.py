"""The action head on people's boxes, as SlowFast has it: RoIAlign over patches, then a classifier.

Video tokens are averaged over time; each box takes 7×7 bins of them, of these the greatest by
feature, dropout, one linear layer, a sigmoid an action. Group tokens have no place in the picture,
so that it is the last layer's patches that are taken.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from trainer.tasks.bins import bin_weights
from trainer.tasks.encoders import drop
from trainer.tasks.spatiotemporal.files import ACTIONS, Labelled
from trainer.tasks.spatiotemporal.metrics import box_iou

_INIT_STD = 0.01  # SlowFast's


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """How boxes are classified; the paper says nothing of it, these are SlowFast's."""

    bins: int = 7  # along each side of a box
    dropout: float = 0.5
    # From this IoU on with a true box a detected one is trained on, with that one's actions.
    train_iou: float = 0.9


# --- boxes: x1, y1, x2, y2 in shares of width and height ---


def in_view(
    boxes: Float[np.ndarray, "n 4"], view: tuple[float, float, float, float], *, flipped: bool
) -> Float[np.ndarray, "n 4"]:
    """Boxes of a picture in a part of it, cut to that part; what lies outside has no area.

    Args:
      boxes: in shares of the picture.
      view: the part, likewise.
      flipped: whether it is mirrored, left to right.

    >>> in_view(np.array([[0.0, 0.25, 0.5, 0.75]]), (0.25, 0.0, 0.75, 1.0), flipped=False).tolist()
    [[0.0, 0.25, 0.5, 0.75]]
    >>> in_view(np.array([[0.0, 0.25, 0.5, 0.75]]), (0.25, 0.0, 0.75, 1.0), flipped=True).tolist()
    [[0.5, 0.25, 1.0, 0.75]]
    """
    left, top, right, bottom = view
    corner, size = np.array([left, top] * 2), np.array([right - left, bottom - top] * 2)
    inside = np.clip((boxes - corner) / size, 0.0, 1.0)
    if flipped:
        inside = np.stack([1 - inside[:, 2], inside[:, 1], 1 - inside[:, 0], inside[:, 3]], axis=1)
    return inside


def trained_on(
    true: Float[np.ndarray, "g 4"],
    detected: Float[np.ndarray, "d 4"],
    config: HeadConfig,
) -> tuple[Float[np.ndarray, "n 4"], Int[np.ndarray, " n"]]:
    """The boxes of a keyframe to train on, and of each which true box's actions it has.

    Args:
      true: annotated ones, all of which are taken.
      detected: those taken that lie on one of these.
      config: says how closely.

    >>> true = np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    >>> trained_on(true, np.array([[0.51, 0.0, 1.0, 1.0], [0.2, 0.0, 0.7, 1.0]]), HeadConfig())[1]
    array([0, 1, 1])
    """
    overlap = box_iou(detected, true)
    if not overlap.size:
        return true, np.arange(len(true))
    close = np.max(overlap, axis=1) >= config.train_iou
    nearest = np.argmax(overlap, axis=1)[close]
    return np.concatenate([true, detected[close]]), np.concatenate([np.arange(len(true)), nearest])


# --- features ---


def roi_weights(
    boxes: Float[np.ndarray, "n 4"], rows: int, columns: int, bins: int
) -> tuple[Float[np.ndarray, "n p rows"], Float[np.ndarray, "n p columns"]]:
    """RoIAlign's weights, aligned and with as many samples as a box is large, down and across.

    A box's edges are half a cell less, so that a cell's value stands at its middle; the mean over
    a bin's samples is that down times that across.

    Args:
      boxes: in shares of the map.
      rows: of the map.
      columns: of it.
      bins: along each side of a box.

    >>> down, across = roi_weights(np.array([[0.0, 0.0, 1.0, 0.5]]), 2, 4, 1)
    >>> down.tolist(), across.tolist()
    ([[[1.0, 0.0]]], [[[0.25, 0.25, 0.25, 0.25]]])
    """
    down = bin_weights(boxes[:, [1, 3]] * rows - 0.5, bins, rows)
    across = bin_weights(boxes[:, [0, 2]] * columns - 0.5, bins, columns)
    return down, across


def box_features(
    tokens: Float[Array, "b nt rows columns d"],
    clip: Int[Array, " n"],
    down: Float[Array, "n p rows"],
    across: Float[Array, "n p columns"],
) -> Float[Array, "n d"]:
    """What the head classifies of each box.

    Args:
      tokens: of clips, after the encoder's last norm, in their places.
      clip: which one each box is of.
      down: of `roi_weights`.
      across: of `roi_weights`.
    """
    still = jnp.mean(tokens, axis=1)[clip]
    bins = jnp.einsum("npr,nrcd,nqc->npqd", down, still, across)
    return jnp.max(bins, axis=(1, 2))


# --- classifier ---


def init_head(key: Key[Array, ""], width: int) -> dict[str, Float[Array, "..."]]:
    """A fresh linear layer."""
    return {
        "kernel": _INIT_STD * jax.random.normal(key, (width, ACTIONS)),
        "bias": jnp.zeros(ACTIONS),
    }


def logits(
    params: PyTree,
    features: Float[Array, "n d"],
    config: HeadConfig,
    keys: Key[Array, " n"] | None = None,
) -> Float[Array, "n actions"]:
    """Of each action, before the sigmoid.

    Args:
      params: of `init_head`.
      features: of `box_features`.
      config: says how much is dropped.
      keys: one a box, in training; None: nothing is dropped.
    """
    kept = drop(features, keys, config.dropout)
    return kept @ params["kernel"] + params["bias"][None]


def loss(
    found: Float[Array, "n actions"], labels: Bool[Array, "n actions"], real: Bool[Array, " n"]
) -> Float[Array, ""]:
    """Binary cross entropy, the mean over boxes and actions.

    Args:
      found: logits.
      labels: which actions are annotated.
      real: which boxes there are: batches are filled up to one size.

    >>> loss(jnp.zeros((2, 80)), jnp.zeros((2, 80), bool), jnp.array([True, False])).round(4)
    Array(0.6931, dtype=float32)
    """
    of_box = jnp.mean(optax.sigmoid_binary_cross_entropy(found, labels.astype(found.dtype)), axis=1)
    return jnp.sum(jnp.where(real, of_box, 0)) / jnp.maximum(jnp.sum(real), 1).astype(found.dtype)


def labelled(
    keyframes: Sequence[tuple[str, int]],
    boxes: Float[np.ndarray, "n 4"],
    probabilities: Float[np.ndarray, "n actions"],
) -> Iterable[Labelled]:
    """Detections as files have them: each box with each action, scored by its probability.

    Args:
      keyframes: the video and second of each box.
      boxes: in shares of the whole picture.
      probabilities: of each action.
    """
    for (video, second), box, of_box in zip(keyframes, boxes.tolist(), probabilities, strict=True):
        for action, score in enumerate(of_box.tolist(), 1):
            yield Labelled(video, second, (box[0], box[1], box[2], box[3]), action, score)
