"""The clip that an annotation row requests, and the errors and rejects of invalid rows."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from pipelines.errors import UserError
from pipelines.sources.reject_reasons import REASONS
from protos.v1.manifest_pb2 import Reject

ROW_CHARACTERS = 500  # maximum length of a rejected row's excerpt


class Question(NamedTuple):
    """A question about a clip, with the fields of the record's message."""

    question_id: str
    text: str
    answer: str
    type: str


class Segment(NamedTuple):
    """A labelled span of a video, with the fields of the record's message."""

    start_us: int
    end_us: int
    label: str


class Box(NamedTuple):
    """A labelled box at one time, with the fields of the record's message."""

    time_us: int
    x1: float
    y1: float
    x2: float
    y2: float
    labels: tuple[str, ...]
    person_id: str
    score: float = 0.0


class ClipRequest(NamedTuple):
    """A span [start_us, end_us) of a video in microseconds, with its annotations."""

    clip_id: str
    video_id: str
    start_us: int
    end_us: int  # end, or TO_THE_END
    caption: str
    labels: tuple[str, ...]
    source_row: str  # "<annotation file name>:<line>" from 1; the row for JSON and Parquet
    caption_cut_from: int = 0  # original length in characters; 0 if not truncated
    captions: tuple[str, ...] = ()  # all captions, `caption` first; empty for a single caption
    questions: tuple[Question, ...] = ()
    segments: tuple[Segment, ...] = ()
    boxes: tuple[Box, ...] = ()
    video_duration_us: int = 0  # annotated duration; 0 if unknown


class RowError(ValueError):
    """An error for a row that cannot become a clip, with a reason code and a readable message."""

    def __init__(self, stage: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.reason = reason


class AnnotationError(UserError, ValueError):
    """An error for an annotation file that cannot be read completely, which aborts a build."""


def to_json(request: ClipRequest) -> str:
    """Return a clip as a line of JSON that `from_json` reads."""
    return json.dumps(request)


def from_json(line: bytes) -> ClipRequest:
    """Return the clip that `to_json` wrote.

    >>> from pipelines.decoding.spans import TO_THE_END
    >>> asked = ClipRequest("a_0_0_", "a", 0, TO_THE_END, "", ("run",), "a.csv:1")
    >>> from_json(to_json(asked).encode()) == asked
    True
    """
    request = ClipRequest(*json.loads(line))
    return request._replace(
        labels=tuple(request.labels),
        captions=tuple(request.captions),
        questions=tuple(Question(*question) for question in request.questions),
        segments=tuple(Segment(*segment) for segment in request.segments),
        boxes=tuple(Box(*box)._replace(labels=tuple(box[5])) for box in request.boxes),
    )


def clip_id(video_id: str, start_us: int, end_us: int, caption: str) -> str:
    """Return an id of URL-safe characters that identifies a clip by video, span and caption.

    >>> clip_id("dQw4w9WgXcQ", 0, 10_000_000, "a man sings")
    'dQw4w9WgXcQ_0_10000000_5b41c1ab'
    """
    digest = hashlib.sha256(caption.encode()).hexdigest()
    return f"{first_of_clip_id(video_id)}{start_us}_{end_us}_{digest[:8]}"


def first_of_clip_id(video_id: str) -> str:
    """Return the common prefix of all clip_ids of a video.

    >>> first_of_clip_id("(HQ)_climb_1")
    '%28HQ%29_climb_1_'
    """
    return f"{quote(video_id, safe='')}_"


def lacking(kept: ClipRequest, dropped: ClipRequest) -> str:
    """Return how many annotations are lost with a dropped row of the same clip, or an empty text.

    Questions with the same text and answer count as equal, whatever their ids.

    >>> kept = ClipRequest("a_0_9_", "a", 0, 9, "", ("run",), "a.csv:1")
    >>> lacking(kept, kept._replace(labels=("run", "jump")))
    '1 of its labels'
    """
    counts = {what: len(set(of(dropped)) - set(of(kept))) for what, of in _ANNOTATIONS.items()}
    return ", ".join(f"{count} of its {what}" for what, count in counts.items() if count)


_ANNOTATIONS: Mapping[str, Callable[[ClipRequest], Iterable[object]]] = {
    "captions": lambda request: (request.caption, *request.captions),
    "labels": lambda request: request.labels,
    "questions": lambda request: ((one.text, one.answer) for one in request.questions),
    "segments": lambda request: request.segments,
    "boxes": lambda request: request.boxes,
}


def reject(
    stage: str, reason: str, message: str, *, source_row: str, video_id: str = "", row: str = ""
) -> Reject:
    r"""Return a row's Reject message.

    Lone surrogates are escaped, because JSON texts may contain them but messages may not. Line
    breaks of the message are escaped, so that it stays one line.

    Raises:
      KeyError: the reason is not in REASONS.

    >>> reject("read", "row_columns", "2 columns", source_row="a.csv:3", row="x,y").reason
    'row_columns'
    >>> print(reject("read", "row_columns", "no column 'a\n'", source_row="a.csv:3").message)
    no column 'a\n'
    """
    if reason not in REASONS:
        raise KeyError(f"unknown reject reason {reason!r}")
    return Reject(
        stage=stage,
        reason=reason,
        message=_escaped(_LINE_BREAKS.sub(_as_escape, message)),
        source_row=source_row,
        video_id=_escaped(video_id),
        row=_escaped(row[:ROW_CHARACTERS]),
    )


# The line ends of str.splitlines.
_LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def _as_escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def row_order(source_row: str) -> tuple[str, int]:
    """Return a key that sorts rows by file, then numerically, with unnumbered rows first.

    >>> sorted(["a.csv:10", "a.csv:9", "a.csv:"], key=row_order)
    ['a.csv:', 'a.csv:9', 'a.csv:10']
    """
    name, _, row = source_row.rpartition(":")
    numbered = row.isascii() and row.isdecimal() and len(row) < 19
    return name, int(row) if numbered else 0
