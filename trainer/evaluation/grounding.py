"""Spatial grounding: the share of nouns whose group lies on the named object.

The metric is the pointing game (Zhang et al. 2016) with group tokens. A noun selects the clip's
most similar group (cosine g^m · n). Among the video tokens that the last grouping block assigns to
this group, the model points at the one with the highest soft assignment. The score is the share of
its tubelet's frames in which its centre lies on the object. A group without tokens scores 0.
"""

import dataclasses
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int

from trainer.configs.config import Config, VideoConfig
from trainer.evaluation.ground_truth import TrueObject
from trainer.finite import finite


class Grounding(TypedDict):
    """Shares of all named objects; `chance` is their mean area, the score of a random point."""

    objects: int
    pointing_accuracy: float
    chance: float
    other_object: float | None  # share of points on another object; None without a second object
    empty_groups: float  # share of nouns whose group has no token


class Point(NamedTuple):
    """The point that a model selects: a tubelet's window, and its centre in the model's frame."""

    window: int
    y: float  # share of the model's frame, from the top
    x: float  # share of the model's frame, from the left


@dataclasses.dataclass(frozen=True)
class View:
    """The part of a source clip that the model sees, and the mapping of its pixels and frames.

    Evaluation scales the short side to `short_side` and crops the centre `resolution`² pixels. It
    takes T frames evenly spread over those in the snapshot.
    """

    config: Config
    snapshot_frames: int  # frames per clip in the snapshot

    def frames(self, source_frames: int) -> Int[np.ndarray, " t"]:
        """Return the source frame of each of the model's T frames.

        >>> View(Config(video=VideoConfig(frames=4)), snapshot_frames=8).frames(16).tolist()
        [3, 7, 11, 15]
        """
        frames, kept = self.config.video.frames, self.snapshot_frames
        picked = (2 * np.arange(frames) + 1) * kept // (2 * frames)
        return (2 * picked + 1) * source_frames // (2 * kept)

    def crop(self, height: int, width: int) -> tuple[float, float, float]:
        """Return the square crop of a source frame: top, left and side, in its pixels.

        >>> View(Config(), snapshot_frames=32).crop(256, 512)
        (16.0, 144.0, 224.0)
        """
        share = min(1.0, self.config.video.resolution / self.config.input.short_side)
        side = share * min(height, width)
        return (height - side) / 2, (width - side) / 2, side

    def pixel(self, point: Point, height: int, width: int) -> tuple[int, int]:
        """Return the source pixel (y, x) of a point."""
        top, left, side = self.crop(height, width)
        y, x = int(top + point.y * side), int(left + point.x * side)
        return min(y, height - 1), min(x, width - 1)

    def visible(
        self, masks: Bool[np.ndarray, "frames height width"]
    ) -> Bool[np.ndarray, "t side1 side2"]:
        """Return the part of an object's masks that the model sees."""
        frames, height, width = masks.shape
        top, left, side = self.crop(height, width)
        rows = slice(round(top), max(round(top + side), round(top) + 1))
        columns = slice(round(left), max(round(left + side), round(left) + 1))
        return masks[self.frames(frames), rows, columns]


def nearest_group(groups: Float[np.ndarray, "m e"], noun: Float[np.ndarray, " e"]) -> int:
    """Return the group most similar to a noun; both arguments are L2-normalized.

    Raises:
      NonFiniteError: a group or the noun is not finite.

    >>> nearest_group(np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([0.0, 1.0]))
    1
    """
    return int(np.argmax(finite("groups", groups) @ finite("noun", noun)))


def heat_map(
    groups: Float[np.ndarray, "m e"],
    group_of: Int[np.ndarray, " n"],
    share: Float[np.ndarray, " n"],
    noun: Float[np.ndarray, " e"],
    video: VideoConfig,
) -> Float[np.ndarray, "nt rows columns"]:
    """Return a heat map that locates a noun (figure 4): the soft assignments to the noun's group.

    Patches of other groups are 0. All are 0 if the group has no patch. For the arguments see
    `nearest_group` and `pointed_token`.

    >>> video = VideoConfig(frames=2, resolution=32, patch=16)
    >>> ones = np.ones(4)
    >>> heat_map(np.eye(2), np.array([0, 1, 0, 1]), ones, np.array([0.0, 1.0]), video).tolist()
    [[[0.0, 1.0], [0.0, 1.0]]]
    """
    side = video.resolution // video.patch
    finite("soft assignments", share)
    heat = np.where(group_of == nearest_group(groups, noun), share, 0.0)
    return heat.reshape(video.windows, side, side)


def pointed_token(
    group: int, group_of: Int[np.ndarray, " n"], share: Float[np.ndarray, " n"]
) -> int | None:
    """Return a group's token with the highest soft assignment; None if the group has no token.

    Args:
      group: number of the group.
      group_of: group of each token.
      share: each token's soft assignment to its group.

    >>> pointed_token(1, np.array([0, 1, 1]), np.array([0.9, 0.5, 0.6]))
    2
    >>> pointed_token(2, np.array([0, 1, 1]), np.array([0.9, 0.5, 0.6])) is None
    True
    """
    of_group = np.where(group_of == group, finite("soft assignments", share), -np.inf)
    token = int(np.argmax(of_group))
    return token if group_of[token] == group else None


def point_of(token: int, config: Config) -> Point:
    """Return the centre of a video token.

    >>> point_of(5, Config(video=VideoConfig(resolution=32, patch=16)))
    Point(window=1, y=0.25, x=0.75)
    """
    video = config.video
    side = video.resolution // video.patch
    window, patch = divmod(token, video.patches)
    row, column = divmod(patch, side)
    return Point(window, (row + 0.5) / side, (column + 0.5) / side)


def hit(point: Point, masks: Bool[np.ndarray, "frames height width"], view: View) -> float:
    """Return the share of a tubelet's frames in which its point lies on the object."""
    frames, height, width = masks.shape
    tubelet = view.config.video.tubelet
    shown = view.frames(frames)[point.window * tubelet : (point.window + 1) * tubelet]
    y, x = view.pixel(point, height, width)
    return float(np.mean(masks[shown, y, x]))


def pointing(
    groups: Float[np.ndarray, "n m e"],
    group_of: Int[np.ndarray, "n tokens"],
    share: Float[np.ndarray, "n tokens"],
    objects: list[list[TrueObject]],
    nouns: list[Float[np.ndarray, "_ e"]],
    view: View,
) -> Grounding:
    """Score the pointing game for every named object of every clip.

    Args:
      groups: g^m of each clip, L2-normalized.
      group_of: group of each token, by clip.
      share: soft assignment of each token to its group, by clip.
      objects: true objects of each clip.
      nouns: embeddings of the prompted phrases of each clip's objects, L2-normalized.
      view: mapping of the model's frames to the source's.
    """
    hits, areas, others, empty = [], [], [], 0
    for clip, (things, embedded) in enumerate(zip(objects, nouns, strict=True)):
        for place, (thing, noun) in enumerate(zip(things, embedded, strict=True)):
            rest = [other.masks for k, other in enumerate(things) if k != place]
            areas.append(np.mean(view.visible(thing.masks)))
            token = pointed_token(nearest_group(groups[clip], noun), group_of[clip], share[clip])
            if token is None:
                empty += 1
                hits.append(0.0)
                others.extend([0.0] if rest else [])
                continue
            point = point_of(token, view.config)
            hits.append(hit(point, thing.masks, view))
            if rest:
                others.append(np.mean([hit(point, masks, view) for masks in rest]))
    return {
        "objects": len(hits),
        "pointing_accuracy": float(np.mean(hits)),
        "chance": float(np.mean(areas)),
        "other_object": float(np.mean(others)) if others else None,
        "empty_groups": empty / len(hits),
    }
