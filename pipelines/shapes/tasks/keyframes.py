"""Boxes and actions of the two objects of *Shapes* clips, in AVA v2.2's formats.

    ava/ava_{train,val}_v2.2.csv                        a keyframe is the middle of a clip
    ava/ava_{train,val}_excluded_timestamps_v2.2.csv    keyframes with an invisible object
    ava/ava_{train,val}_predicted_boxes.csv             simulated boxes of a detector
    ava/ava_action_list_v2.2.pbtxt                      the motions, numbered from 1

The videos are those of OUT/train and OUT/test. The test split is named val here. Detections are
slightly shifted true boxes, without some of them, and with some false positives. The detections
and their scores are random.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.shapes import draws, grammar, render, scene
from pipelines.shapes.scene import Clip

_PARTS = {"train": "train", "test": "val"}
_SHIFT = 0.02  # standard deviation of a detected box's corners, as a fraction of the frame's side
# Fraction of missed boxes, and fraction of keyframes with a false positive.
_MISSED, _OF_NOTHING = 0.05, 0.2


def files(train: Sequence[Clip], test: Sequence[Clip], seed: int) -> dict[str, str]:
    """Return the texts of the annotation files by their paths in the tasks' folder."""
    items = [
        f'item {{\n  name: "{motion}"\n  id: {number}\n}}\n'
        for number, motion in enumerate(grammar.MOTIONS, 1)
    ]
    written = {"ava/ava_action_list_v2.2.pbtxt": "".join(items)}
    for clips in (train, test):
        if not clips:
            continue
        part = _PARTS[clips[0].split]
        boxes, excluded, found = "", "", ""
        for clip in clips:
            seen = _boxes(clip)
            keyframe = f"{clip.video_id},{_keyframe_us(clip) // 1_000_000:04d}"
            if len(seen) < len(clip.things):
                excluded += f"{keyframe}\n"
            for thing, corners in seen.items():
                action = [*grammar.MOTIONS].index(clip.things[thing].concepts.motion) + 1
                boxes += f"{keyframe},{_corners(corners)},{action},{thing}\n"
            for corners, score in _detections(clip, [*seen.values()], seed):
                found += f"{keyframe},{_corners(corners)},,{score:.6f}\n"
        written[f"ava/ava_{part}_v2.2.csv"] = boxes
        written[f"ava/ava_{part}_excluded_timestamps_v2.2.csv"] = excluded
        written[f"ava/ava_{part}_predicted_boxes.csv"] = found
    return written


def _keyframe_us(clip: Clip) -> int:
    """Return the middle of a clip in microseconds, which must be a whole second."""
    return (clip.start_us + clip.end_us) // 2


def _boxes(clip: Clip) -> dict[int, np.ndarray]:
    """Return the visible objects' boxes [4] at the keyframe, as fractions of the frame's side."""
    frame = clip.format.frames // 2
    boxes = (of_thing[frame] for of_thing in render.boxes(clip))
    return {
        thing: np.array(box) / clip.format.side
        for thing, box in enumerate(boxes)
        if box is not None
    }


def _detections(
    clip: Clip, boxes: Sequence[np.ndarray], seed: int
) -> Iterator[tuple[np.ndarray, float]]:
    rng = scene.generator_of(clip, seed, draws.DETECTIONS_KEY)
    for box in boxes:
        if rng.uniform() >= _MISSED:
            shifted = np.clip(box + rng.normal(0, _SHIFT, 4), 0, 1)
            if (shifted[2:] - shifted[:2] > _SHIFT).all():
                yield shifted, rng.uniform(0.8, 1)
    if rng.uniform() < _OF_NOTHING:
        corner, size = rng.uniform(0, 0.6, 2), rng.uniform(0.2, 0.4, 2)
        yield np.concatenate([corner, corner + size]), rng.uniform(0.3, 0.95)


def _corners(corners: np.ndarray) -> str:
    return ",".join(f"{value:.3f}" for value in corners)
