"""The targets of G-TAD for a video with annotated actions; times are shares of the axis."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from trainer.evaluation.segment_detection import temporal_iou

# Half width of the region around each boundary, in steps of the axis: 0.015 at 100 steps.
_REACH = 1.5


class Targets(NamedTuple):
    """The targets of one video, or the stacked targets of several."""

    map: Float[np.ndarray, "*b d s"]  # maximum IoU of a proposal with any action
    start: Float[np.ndarray, "*b t"]  # share of a time's window that is near a start
    end: Float[np.ndarray, "*b t"]


def on_axis(segments: Sequence[tuple[float, float]], seconds: float) -> Float[np.ndarray, "n 2"]:
    """Return starts and ends in shares of the axis, clipped to 0 … 1.

    Args:
      segments: starts and ends in seconds.
      seconds: time that the features cover: duration · feature_frame / duration_frame.

    >>> on_axis([(2.0, 12.0)], 10.0).tolist()
    [[0.2, 1.0]]
    """
    return np.clip(np.reshape(segments, (-1, 2)) / seconds, 0.0, 1.0).astype(np.float64)


def targets(actions: Float[np.ndarray, "n 2"], length: int) -> Targets:
    """Return the targets of a video.

    Args:
      actions: starts and ends in shares of the axis; without actions, all targets are 0.
      length: number of times T.

    >>> made = targets(np.array([[0.25, 0.75]]), 4)
    >>> made.map[1].tolist()  # of two steps, from each start
    [0.3333333333333333, 1.0, 0.3333333333333333, 0.0]
    >>> made.start.round(3).tolist(), made.end.round(3).tolist()
    ([1.0, 1.0, 0.5, 0.0], [0.0, 0.5, 1.0, 1.0])
    """
    if not len(actions):
        return Targets(np.zeros((length, length)), np.zeros(length), np.zeros(length))
    durations, starts = np.indices((length, length))
    proposals = np.stack([starts, starts + durations + 1], axis=-1).reshape(-1, 2) / length
    best = np.max(temporal_iou(proposals, actions), axis=1)
    windows = np.stack([np.arange(length) - 0.5, np.arange(length) + 1.5], axis=1) / length

    def near(boundary: Float[np.ndarray, " n"]) -> Float[np.ndarray, " t"]:
        low = np.maximum(windows[:, None, 0], boundary[None] - _REACH / length)
        high = np.minimum(windows[:, None, 1], boundary[None] + _REACH / length)
        return np.max(np.maximum(high - low, 0.0), axis=1) * length / 2

    return Targets(best.reshape(length, length), near(actions[:, 0]), near(actions[:, 1]))
