"""The clip that an annotation row requests, and the errors and rejects of invalid rows."""

import hashlib
import json
from typing import NamedTuple
from urllib.parse import quote

from pipelines.errors import UserError
from protos.v1.manifest_pb2 import Reject

# All reason codes. The codes are stable, because other programs count them.
REASONS = {
    # stage "read": the row as text
    "row_not_utf8": "the row is not UTF-8",
    "row_too_long": "the row is longer than a row can be",
    "row_columns": "the row lacks a column, or has one too many",
    "row_quote": "a quoted field is not closed, neither on its line nor on the next ones",
    "row_stray_quote": "a quoted field goes on after its closing quote",
    "row_carriage_return": "a carriage return stands in the line, outside quotes",
    "row_too_deep": "lists or objects within one another, deeper than any annotation",
    "list_lengths": "a video's lists of times and captions differ in length",
    "file_damaged": "the annotation file cannot be read from this place on",
    # stage "plan": the row as a clip
    "video_id_invalid": "neither a video id nor an address that holds one",
    "time_invalid": "a start or end that is no number, or not a finite one",
    "time_negative": "a start before the video's beginning",
    "span_empty": "the end is not after the start",
    "caption_empty": "no caption",
    "caption_invalid": "a caption that is no text, or with NUL characters",
    "labels_invalid": "labels that are no list of texts, or not the data set's",
    "question_invalid": "a question without text, or an answer that is no text",
    "segment_invalid": "a labelled span that is not from a start to an end, or has no label",
    "box_invalid": "a box that is not within its picture, or a label or score that is none",
    "not_annotated": "listed, and nothing is told of it",
    "other_split": "of a part of the data set that was not asked for",
    "excluded_time": "an instant that the data set itself excludes",
    "excluded": "dropped by --exclude",
    "clip_too_short": "dropped by --min-clip",
    "clip_too_long": "dropped by --max-clip",
    "caption_too_short": "dropped by --min-words",
    "caption_too_long": "dropped by --max-words",
    "caption_not_ascii": "dropped by --min-ascii",
    "duplicate": "the same video, span and caption as an earlier row",
    # stage "decode": the clip's video
    "video_missing": "no file of that id in the video folder",
    "video_ambiguous": "the video map has several files of that id",
    "video_empty": "a file of no bytes",
    "video_not_a_file": "a folder, pipe or device in the video's place",
    "video_outside_root": "a link or path that leads out of the video folder",
    "video_too_large": "larger than --max-video-size, so it was not fetched",
    "video_unreadable": "the file cannot be opened or read",
    "video_no_stream": "the file has no video stream",
    "video_undecodable": "ffmpeg cannot read the file or decode its frames",
    "video_truncated": "the frames end before the length that the file states",
    "span_past_end": "too much of the span is after the video's end",
    "decode_timeout": "decoding took longer than its time limit",
    "decode_limit": "larger frames, or more memory or output, than decoding may use",
    # stage "filter": what the clip shows
    "clip_static": "dropped by --min-motion",
    # stage "remove": the clip was a record of an earlier version
    "video_removed": "the video was taken down",
}

REMOVED = "video_removed"  # reason of rejects that no build retries

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


def reject(
    stage: str, reason: str, message: str, *, source_row: str, video_id: str = "", row: str = ""
) -> Reject:
    """Return a row's Reject message.

    Lone surrogates are escaped, because JSON texts may contain them but messages may not.

    Raises:
      KeyError: the reason is not in REASONS.

    >>> reject("read", "row_columns", "2 columns", source_row="a.csv:3", row="x,y").reason
    'row_columns'
    """
    if reason not in REASONS:
        raise KeyError(f"unknown reject reason {reason!r}")
    return Reject(
        stage=stage,
        reason=reason,
        message=_escaped(message),
        source_row=source_row,
        video_id=_escaped(video_id),
        row=_escaped(row[:ROW_CHARACTERS]),
    )


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
