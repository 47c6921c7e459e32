"""The ground truth of *Shapes* clips, as one JSON line per clip.

A line has `video_id`, `start_us`, `end_us`, `caption`, `frames`, `width`, `height` and a list
`objects`. Each object has

- `phrase`: its noun phrase in the caption, without the article;
- `colour`, `kind`, `motion`: its concepts, independent of the caption's synonyms;
- `events`: its motions with their start and end, in microseconds of the video's time;
- `boxes`: for each source frame, [x0, y0, x1, y1] in pixels (ends exclusive), or null if invisible;
- `area_share`: for each source frame, the fraction of the frame that the object covers;
- `masks`: for each source frame, the covered pixels as run lengths in row-major order. Runs
  alternate between outside and inside, begin outside, and add up to width × height.
"""

import json

import numpy as np

from pipelines.shapes import render
from pipelines.shapes.scene import Clip


def line(clip: Clip) -> str:
    """Return a clip's ground truth as a line of JSON, without the line end."""
    boxes, masks = render.boxes(clip), render.masks(clip)
    record = {
        "video_id": clip.video_id,
        "start_us": clip.start_us,
        "end_us": clip.end_us,
        "caption": clip.caption,
        "frames": clip.format.frames,
        "width": clip.format.side,
        "height": clip.format.side,
        "objects": [
            {
                "phrase": thing.words.phrase,
                "colour": thing.concepts.colour,
                "kind": thing.concepts.kind,
                "motion": thing.concepts.motion,
                "events": [
                    {
                        "label": thing.concepts.motion,
                        "start_us": clip.start_us,
                        "end_us": clip.end_us,
                    }
                ],
                "boxes": boxes[i],
                "area_share": [round(float(mask.mean()), 6) for mask in masks[i]],
                "masks": [run_lengths(mask) for mask in masks[i]],
            }
            for i, thing in enumerate(clip.things)
        ],
    }
    return json.dumps(record, separators=(",", ":"))


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return the run lengths of a bool mask [height, width] in row-major order.

    The first run is outside the mask, and may have length 0.

    >>> run_lengths(np.array([[False, True], [True, False]]))
    [1, 2, 1]
    >>> run_lengths(np.array([[True, True]]))
    [0, 2]
    """
    pixels = mask.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], changes, [pixels.size]))).tolist()
    return [0, *lengths] if pixels[0] else lengths
