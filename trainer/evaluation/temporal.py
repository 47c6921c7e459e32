"""Temporal grouping: the assignment of a spliced clip's windows to the two clips (section 3.2).

A test splice pastes d = Nt/2 windows of a clip over another clip, from window s ~ U{0 … Nt−d} on.
Each window is assigned to the nearer of the two sides' centres. The centres are computed without
that window, since pure noise would otherwise score almost perfectly.
"""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from trainer.configs.config import VideoConfig
from trainer.errors import UserError
from trainer.finite import finite


class TemporalError(UserError, ValueError):
    """A model with too few windows for the test."""


def check_windows(video: VideoConfig) -> None:
    """Check that a side without one of its windows is never empty.

    Raises:
      TemporalError: a clip has fewer than 4 windows.
    """
    if video.windows < 4:
        raise TemporalError(
            f"the temporal test needs 4 windows per clip, but this model has {video.windows} "
            f"({video.frames} frames in tubelets of {video.tubelet}): use more frames"
        )


def draw_masks(clips: int, windows: int, seed: int) -> Bool[np.ndarray, "n nt"]:
    """Draw the masks of test splices, True at the windows of the pasted clip.

    >>> draw_masks(2, 4, seed=0).astype(int).tolist()
    [[0, 0, 1, 1], [0, 1, 1, 0]]
    """
    length = windows // 2
    start = np.random.default_rng(seed).integers(0, windows - length + 1, clips)[:, None]
    window = np.arange(windows)[None]
    return (start <= window) & (window < start + length)


def splice(
    clip: Shaped[np.ndarray, "n t h w c"],
    other: Shaped[np.ndarray, "n t h w c"],
    mask: Bool[np.ndarray, "n nt"],
) -> Shaped[np.ndarray, "n t h w c"]:
    """Return the frames of `clip` in windows where `mask` is True, and of `other` elsewhere."""
    tubelet = clip.shape[1] // mask.shape[1]
    of_frame = np.repeat(mask, tubelet, axis=1)[:, :, None, None, None]
    return np.where(of_frame, clip, other)


def own_side(
    features: Float[np.ndarray, "n nt d"], mask: Bool[np.ndarray, "n nt"]
) -> Float[np.ndarray, "n nt"]:
    """Return 1 for windows nearer, by cosine, to their own side's centre, else 0; ½ for a tie.

    Both centres are computed without the window in question.

    Args:
      features: spatially averaged video tokens of each window.
      mask: side of each window; both sides of every clip have 2 windows or more.

    Raises:
      NonFiniteError: a feature is not finite.

    >>> z = np.array([[[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]])
    >>> own_side(z, np.array([[True, True, False, False]])).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    >>> own_side(z, np.array([[True, False, True, False]])).tolist()
    [[0.0, 0.0, 0.0, 0.0]]
    """
    features = finite("features of windows", features).astype(np.float64)
    own = mask[:, :, None] == mask[:, None, :]  # [n, j, i]: True if i is on the side of j
    without_itself = own & ~np.eye(mask.shape[1], dtype=bool)[None]
    to_own = _cosine(features, _means(features, without_itself))
    to_other = _cosine(features, _means(features, ~own))
    return (to_own > to_other) + 0.5 * (to_own == to_other)


def window_accuracy(features: Float[np.ndarray, "n nt d"], mask: Bool[np.ndarray, "n nt"]) -> float:
    """Return the share of all windows that are nearer to their own side (`own_side`)."""
    return float(np.mean(own_side(features, mask)))


def position_prior(windows: int) -> float:
    """Return the best accuracy from a window's index alone: the mean over j of max(p_j, 1 − p_j).

    >>> position_prior(8)
    0.7
    """
    length = windows // 2
    starts = np.arange(windows - length + 1)[:, None]
    window = np.arange(windows)[None]
    share = np.mean((starts <= window) & (window < starts + length), axis=0)
    return float(np.mean(np.maximum(share, 1.0 - share)))


def similarity_matrix(features: Float[np.ndarray, "nt d"]) -> Float[np.ndarray, "nt nt"]:
    """Return the cosine similarities between the windows of one clip (Figures 2 and 5).

    >>> similarity_matrix(np.array([[3.0, 0.0], [0.0, 2.0]])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    unit = _unit(finite("features of windows", features).astype(np.float64))
    return unit @ unit.T


def _means(
    features: Float[np.ndarray, "n nt d"], members: Bool[np.ndarray, "n nt nt"]
) -> Float[np.ndarray, "n nt d"]:
    """Return, for each window j, the mean of the windows in `members[:, j]`."""
    return members.astype(np.float64) @ features / np.sum(members, axis=2, keepdims=True)


def _cosine(
    a: Float[np.ndarray, "n nt d"], b: Float[np.ndarray, "n nt d"]
) -> Float[np.ndarray, "n nt"]:
    return np.sum(_unit(a) * _unit(b), axis=-1)


def _unit(x: Float[np.ndarray, "*b d"]) -> Float[np.ndarray, "*b d"]:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float64).tiny)
