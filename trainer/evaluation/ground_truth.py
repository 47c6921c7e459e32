"""Ground-truth objects of clips, from the JSON Lines file beside a corpus.

A line is one clip: `video_id`, `start_us`, `end_us`, `caption`, `frames`, `width`, `height` and
`objects`. Each object has a noun `phrase` and `masks`. A mask is the run lengths of one source
frame's pixels, row by row: outside, inside, outside, …. They add up to width × height. Other fields
belong to other tasks and are ignored.
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from trainer.errors import UserError


class TruthError(UserError, ValueError):
    """A ground-truth file that cannot be read or does not belong to the snapshot."""


class ClipKey(NamedTuple):
    """The identity of a clip in a snapshot and its ground truth, with times in microseconds."""

    video_id: str
    start_us: int
    end_us: int
    caption: str


class TrueObject(NamedTuple):
    """One named object: its noun phrase and its mask in each source frame."""

    phrase: str
    masks: Bool[np.ndarray, "frames height width"]


def load(path: str | os.PathLike[str]) -> dict[ClipKey, list[TrueObject]]:
    """Read a ground-truth file.

    Raises:
      TruthError: the file cannot be read or is empty, or a line is not valid or contradicts an
        earlier one. Names the line, its fault and the value.
    """
    path = pathlib.Path(path)
    clips = {}
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    key, objects = parse_line(line)
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                    raise TruthError(f"{path}:{number}: {_reason(error)}") from error
                if key in clips and not _same(objects, clips[key]):
                    raise TruthError(
                        f"{path}:{number}: the clip of {key.video_id!r}, {key.start_us}–"
                        f"{key.end_us} µs, has other objects on an earlier line: keep one line"
                    )
                clips[key] = objects
    except OSError as error:
        raise TruthError(
            f"ground truth {path} cannot be read: {error.strerror}; give the truth.jsonl of "
            "svilm-pipelines corpus"
        ) from error
    if not clips:
        raise TruthError(f"{path} is empty: give the truth.jsonl of svilm-pipelines corpus")
    return clips


def parse_line(line: str | bytes) -> tuple[ClipKey, list[TrueObject]]:
    """Parse one line of the file.

    Raises:
      ValueError, TypeError, KeyError, OverflowError, RecursionError: the line is no valid record.
    """
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"a line must be a JSON object, got {_short(record)}")
    key = ClipKey(
        str(record["video_id"]),
        int(record["start_us"]),
        int(record["end_us"]),
        str(record["caption"]),
    )
    frames, height, width = (int(record[name]) for name in ("frames", "height", "width"))
    if min(frames, height, width) < 1:
        raise ValueError(
            f"frames, height and width must be 1 or more, got {frames}, {height} and {width}"
        )
    objects = []
    for thing in record["objects"]:
        phrase, runs = str(thing["phrase"]), thing["masks"]
        if len(runs) != frames:
            raise ValueError(f"{phrase!r} has {len(runs)} masks, but the clip {frames} frames")
        masks = np.stack([mask_of_runs(of_frame, height, width) for of_frame in runs])
        objects.append(TrueObject(phrase, masks))
    return key, objects


def _same(some: list[TrueObject], others: list[TrueObject]) -> bool:
    return len(some) == len(others) and all(
        one.phrase == other.phrase and np.array_equal(one.masks, other.masks)
        for one, other in zip(some, others, strict=True)
    )


def mask_of_runs(runs: list[int], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Return the mask of run lengths, row by row, with the first run outside the object.

    Raises:
      ValueError: a run is negative, or the runs do not add up to the frame's pixels.

    >>> mask_of_runs([1, 2, 1], 2, 2).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    lengths = np.asarray(runs, np.int64).reshape(-1)
    if lengths.size and lengths.min() < 0:
        raise ValueError(f"a mask's run must be 0 or more pixels, got {lengths.min()}")
    if lengths.sum() != height * width:
        raise ValueError(
            f"a mask's runs add up to {lengths.sum()} pixels, but the frame has {height}x{width} "
            f"= {height * width}"
        )
    inside = np.arange(lengths.size) % 2 == 1
    return np.repeat(inside, lengths).reshape(height, width)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"the field {error.args[0]!r} is missing"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return str(error)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:39] + "…"
