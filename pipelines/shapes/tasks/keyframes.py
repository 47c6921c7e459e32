"""Who is where and does what, as AVA v2.2 has it: the two objects of the clips of *Shapes*.

    ava/ava_{train,val}_v2.2.csv                        a keyframe is the middle of a clip
    ava/ava_{train,val}_excluded_timestamps_v2.2.csv    keyframes in which an object is not seen
    ava/ava_{train,val}_predicted_boxes.csv             boxes as a detector would find them
    ava/ava_action_list_v2.2.pbtxt                      the motions, from 1

The videos are those of OUT/train and OUT/test, which is val here. Detections are the true boxes
shifted a little, some missing, and some of nothing; they and their scores are drawn.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.shapes import draws, grammar, render, scene
from pipelines.shapes.scene import Clip

_PARTS = {"train": "train", "test": "val"}
_SHIFT = 0.02  # standard deviation of a detected box's corners, of the picture's side
_MISSED, _OF_NOTHING = 0.05, 0.2  # shares of boxes, and of keyframes


def files(train: Sequence[Clip], test: Sequence[Clip], seed: int) -> dict[str, str]:
    """The annotation files by their paths in the folder of the tasks."""
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
                boxes += f"{keyframe},{_told(corners)},{action},{thing}\n"
            for corners, score in _detections(clip, [*seen.values()], seed):
                found += f"{keyframe},{_told(corners)},,{score:.6f}\n"
        written[f"ava/ava_{part}_v2.2.csv"] = boxes
        written[f"ava/ava_{part}_excluded_timestamps_v2.2.csv"] = excluded
        written[f"ava/ava_{part}_predicted_boxes.csv"] = found
    return written


def _keyframe_us(clip: Clip) -> int:
    """The middle of a clip, which must be a whole second."""
    return (clip.start_us + clip.end_us) // 2


def _boxes(clip: Clip) -> dict[int, np.ndarray]:
    """The visible objects' boxes at the keyframe, [4], as shares of the picture's side."""
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


def _told(corners: np.ndarray) -> str:
    return ",".join(f"{value:.3f}" for value in corners)
