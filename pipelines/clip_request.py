"""One clip that an annotation row asks for, and the ways in which a row fails to become one."""

import hashlib
from typing import NamedTuple

from protos.v1.manifest_pb2 import Reject

# Every reason code there is. Codes are stable: other programs count them.
REASONS = {
    # stage "read": the row as text
    "row_not_utf8": "the row is not UTF-8",
    "row_too_long": "the row is longer than a row can be",
    "row_columns": "the row lacks a column, or has one too many",
    "row_quote": "a quoted field is not closed on its line",
    "row_stray_quote": "a quoted field goes on after its closing quote",
    "list_lengths": "a video's lists of times and captions differ in length",
    "file_damaged": "the annotation file cannot be read from this place on",
    # stage "plan": the row as a clip
    "video_id_invalid": "neither a video id nor an address that holds one",
    "time_invalid": "a start or end that is no number, or not a finite one",
    "time_negative": "a start before the video's beginning",
    "span_empty": "the end is not after the start",
    "caption_empty": "no caption",
    "caption_invalid": "a caption that is no text, or with NUL characters",
    "labels_invalid": "labels that are no list of texts",
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

REMOVED = "video_removed"  # never tried again

ROW_CHARACTERS = 500  # of a rejected row that are kept


class ClipRequest(NamedTuple):
    """A captioned span [start_us, end_us) of a video, microseconds."""

    clip_id: str
    video_id: str
    start_us: int
    end_us: int
    caption: str
    labels: tuple[str, ...]
    source_row: str  # "<annotation file name>:<row>", 1-based
    caption_cut_from: int = 0  # characters as annotated, if the caption was cut


class RowError(ValueError):
    """A row that cannot become a clip: its reason code and a message for a person."""

    def __init__(self, stage: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.reason = reason


def clip_id(video_id: str, start_us: int, end_us: int, caption: str) -> str:
    """An id of URL-safe characters (given such a video id), equal for equal clips only.

    >>> clip_id("dQw4w9WgXcQ", 0, 10_000_000, "a man sings")
    'dQw4w9WgXcQ_0_10000000_5b41c1ab'
    """
    return f"{video_id}_{start_us}_{end_us}_{hashlib.sha256(caption.encode()).hexdigest()[:8]}"


def reject(
    stage: str, reason: str, message: str, *, source_row: str, video_id: str = "", row: str = ""
) -> Reject:
    """A row's reject message.

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
        message=message,
        source_row=source_row,
        video_id=video_id,
        row=row[:ROW_CHARACTERS],
    )


def row_order(source_row: str) -> tuple[str, int]:
    """Sorts source rows by file and number, not by digits.

    >>> sorted(["a.csv:10", "a.csv:9"], key=row_order)
    ['a.csv:9', 'a.csv:10']
    """
    name, _, row = source_row.rpartition(":")
    return name, int(row)
