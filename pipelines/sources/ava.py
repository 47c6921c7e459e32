"""AVA actions: a CSV without a header, one row per box and action, and one clip per keyframe.

    -5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1

The columns are: video, second, left, top, right and bottom as fractions of the frame, action,
person. Two further files may accompany it: excluded timestamps (video, second), and a detector's
boxes. A detected box has an empty seventh field and a score with a decimal point in the eighth.

The videos are usually trimmed to start at 15:00, which requires --cut-at 900.
"""

import functools
import io
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipelines.sources import clip_fields, lines
from pipelines.sources.clip_request import AnnotationError, Box, ClipRequest, RowError, row_order
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    "a CSV file with the columns video, second, x1, y1, x2, y2, action, person; optionally, CSV "
    "files of excluded seconds (video, second) and of detections (a score instead of the person)"
)
OPTIONS = ("window_us", "cut_at_us")
SUBSETS = ()

WINDOW_US = 2_133_333  # default window length: 32 frames at 30 frames/s, with a stride of 2

Keyframe = tuple[str, int]  # video, second

_SECOND = re.compile(r"\d{1,6}")
_NUMBER = re.compile(r"\d{1,3}(\.\d{1,20})?([eE]-\d{1,2})?")


class _Line(NamedTuple):
    keyframe: Keyframe
    corners: tuple[float, float, float, float]
    action: str
    person: str
    score: float  # a detection's score; 0 for an annotated box


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per keyframe, ordered by its first line, and a reject per invalid line.

    A keyframe has all its boxes, with annotated boxes before detected ones.
    """
    excluded: set[Keyframe] = set()
    boxes: dict[str, bytes] = {}
    errors: list[tuple[str, int, bytes, RowError]] = []
    for name, data in files.items():
        if len(_first(data)) != 2:
            boxes[name] = data
            continue
        for number, line in lines.numbered(io.BytesIO(data)):
            try:
                excluded.add(_keyframe(line))
            except RowError as error:
                errors.append((name, number, line, error))
    by_keyframe: dict[Keyframe, tuple[str, list[_Line]]] = {}
    for name in sorted(boxes, key=lambda name: _detected(_first(boxes[name]))):
        detected = _detected(_first(boxes[name]))
        good, bad = 0, len(errors)
        for number, line in lines.numbered(io.BytesIO(boxes[name])):
            try:
                found = _line(line, detected)
                of_keyframe = by_keyframe.setdefault(found.keyframe, (f"{name}:{number}", []))
                of_keyframe[1].append(found)
                good += 1
            except RowError as error:
                errors.append((name, number, line, error))
        if len(files) > 1 and not good and len(errors) > bad:  # The file may list exclusions.
            _, number, _, error = errors[bad]
            raise AnnotationError(
                f"{name} has no valid box, line {number}: {error}: check that it is the right file"
            )
    clips = [
        clip_fields.clip_or_reject(
            functools.partial(_clip, keyframe, found, excluded, source_row, options),
            source_row=source_row,
            video_id=keyframe[0],
            row=",".join(map(str, keyframe)),
        )
        for keyframe, (source_row, found) in by_keyframe.items()
    ]
    rejects = [
        clip_fields.rejected(error, source_row=f"{name}:{number}", row=lines.excerpt(line))
        for name, number, line, error in errors
    ]
    order = [*files]

    def place(row: ClipRequest | Reject) -> tuple[int, int]:
        name, number = row_order(row.source_row)
        return order.index(name), number

    yield from sorted([*clips, *rejects], key=place)


def _first(data: bytes) -> list[str]:
    """Return the fields of the first line with a box, or of the last line if none has a box.

    They determine the kind of the file.
    """
    fields: list[str] = []
    for _, line in lines.numbered(io.BytesIO(data)):
        fields = line.decode(errors="replace").strip().split(",")
        if len(fields) != 2:  # Two fields are a keyframe without a box.
            break
    return fields


def _detected(fields: list[str]) -> bool:
    return len(fields) == 8 and (not fields[6] or "." in fields[7])


def _keyframe(line: bytes) -> Keyframe:
    video, _, second = lines.text(line).strip().partition(",")
    if not _SECOND.fullmatch(second):
        raise RowError("plan", "time_invalid", f"second {second[:50]!r} is no whole number")
    return video, int(second)


def _line(line: bytes, detected: bool) -> _Line:
    fields = [field.strip() for field in lines.text(line).split(",")]
    if len(fields) != 8:
        raise RowError("read", "row_columns", f"{len(fields)} columns where there should be 8")
    video, second, *corners, action, last = fields
    if not _SECOND.fullmatch(second):
        raise RowError("plan", "time_invalid", f"second {second[:50]!r} is no whole number")
    if not all(map(_NUMBER.fullmatch, corners)):
        raise RowError("plan", "box_invalid", f"a box of {', '.join(corners):.100}")
    x1, y1, x2, y2 = map(float, corners)
    if not (x1 < x2 <= 1 and y1 < y2 <= 1):
        raise RowError("plan", "box_invalid", f"box {x1}, {y1}, {x2}, {y2} is not within 0 to 1")
    if not (action.isdecimal() or (detected and not action)):
        raise RowError("plan", "box_invalid", f"action {action[:50]!r} is no number")
    if not detected:
        return _Line((video, int(second)), (x1, y1, x2, y2), action, last, 0.0)
    if not _NUMBER.fullmatch(last) or not 0 < float(last) <= 1:
        raise RowError("plan", "box_invalid", f"score {last[:50]!r} is not above 0 and up to 1")
    return _Line((video, int(second)), (x1, y1, x2, y2), action, "", float(last))


def _clip(
    keyframe: Keyframe,
    found: list[_Line],
    excluded: set[Keyframe],
    source_row: str,
    options: SourceOptions,
) -> ClipRequest:
    video, second = keyframe
    if keyframe in excluded:
        raise RowError("plan", "excluded_time", f"{video} at {second} s")
    time_us = second * 1_000_000 - options.cut_at_us
    if time_us < 0:
        raise RowError("plan", "time_negative", f"second {second}, before the video is cut")
    window_us = options.window_us or WINDOW_US
    clip = clip_fields.clip(
        clip_fields.plain_id(video),
        max(0, time_us - window_us // 2),
        time_us + window_us - window_us // 2,
        "",
        source_row=source_row,
        options=SourceOptions(keep_empty_captions=True),
    )
    return clip._replace(boxes=tuple(_boxes(time_us, found)))


def _boxes(time_us: int, found: list[_Line]) -> Iterator[Box]:
    """Yield one box per person with all its actions, in order of the persons' first lines."""
    labels: dict[tuple, dict[str, None]] = {}  # The keys of a dict are an ordered set.
    for line in found:
        actions = labels.setdefault((line.corners, line.person, line.score), {})
        if line.action:
            actions[line.action] = None
    for ((x1, y1, x2, y2), person, score), actions in labels.items():
        yield Box(time_us, x1, y1, x2, y2, tuple(actions), person, score)
