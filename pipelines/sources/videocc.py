"""VideoCC's annotation file: video, start, end and caption of a clip on each line.

Whether the file has a header, whether videos are named by URL or by YouTube id, and how commas
in captions are quoted is undocumented and read differently by public readers. So all forms are
accepted. A row never spans lines: one stray quote cannot swallow the rows after it.
"""

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.clip_request import ClipRequest, RowError, clip_id, reject
from protos.v1.manifest_pb2 import Reject

FORM = "a CSV file; its rows: video URL or YouTube id, start µs, end µs, caption"

LINE_BYTES = 1 << 20
CAPTION_CHARACTERS = 10_000

_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_URL = re.compile(
    r"(?:https?://)?(?:www\.|m\.)?(?:youtube\.com/(?:watch\?(?:[^#]*&)?v=|embed/|shorts/|v/)|youtu\.be/)"
    r"([A-Za-z0-9_-]{11})(?:[?&#/].*)?"
)


def read(path: str) -> Iterator[ClipRequest | Reject]:
    """The rows of one file, in order; lines of white space are not rows."""
    name = Path(path).name
    row = 0
    with open(path, "rb") as file:
        for line in _lines(file):
            if not line.strip():
                continue
            if row == 0:
                line = line.removeprefix(b"\xef\xbb\xbf")
                if _is_header(line):
                    row = 1
                    continue
            row += 1
            source_row = f"{name}:{row}"
            text = line[: 4 * 500].decode(errors="backslashreplace").rstrip("\r\n")
            try:
                yield parse(line, source_row)
            except RowError as error:
                yield reject(error.stage, error.reason, str(error), source_row=source_row, row=text)


def parse(line: bytes, source_row: str) -> ClipRequest:
    """One line as a clip.

    Raises:
      RowError: with the reason why it is none.

    >>> parse(b"https://youtu.be/dQw4w9WgXcQ,0,9e6,a man sings, badly", "a.csv:1").caption
    'a man sings, badly'
    """
    video, start, end, caption = _columns(line)
    video_id = _video_id(video)
    start_us, end_us = _microseconds(start, "start"), _microseconds(end, "end")
    if start_us < 0:
        raise RowError("plan", "time_negative", f"start of {start_us} µs")
    if end_us <= start_us:
        raise RowError("plan", "span_empty", f"start {start_us} µs, end {end_us} µs")
    caption = caption.strip()
    if not caption:
        raise RowError("plan", "caption_empty", "the caption is empty")
    if "\0" in caption:
        raise RowError("plan", "caption_invalid", "the caption holds NUL characters")
    if len(caption) > CAPTION_CHARACTERS:
        raise RowError(
            "plan",
            "caption_too_long",
            f"{len(caption)} characters where {CAPTION_CHARACTERS} are allowed",
        )
    return ClipRequest(
        clip_id=clip_id(video_id, start_us, end_us, caption),
        video_id=video_id,
        start_us=start_us,
        end_us=end_us,
        caption=caption,
        labels=(),
        source_row=source_row,
    )


def _lines(file) -> Iterator[bytes]:
    """Lines, each cut where it passes LINE_BYTES, so that no file can fill the memory."""
    while line := file.readline(LINE_BYTES + 1):
        rest = line
        while len(rest) > LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES + 1)
        yield line


def _is_header(line: bytes) -> bool:
    """Whether both times are words ("start"), so not numbers, NaN or infinity."""
    try:
        _, start, end, _ = _columns(line)
    except RowError:
        return False
    return all(
        any(character.isalpha() for character in field)
        and not any(character.isdigit() for character in field)
        and field.strip().lower().lstrip("+-") not in ("nan", "inf", "infinity")
        for field in (start, end)
    )


def _columns(line: bytes) -> list[str]:
    if len(line) > LINE_BYTES:
        raise RowError("read", "row_too_long", f"a line of more than {LINE_BYTES} bytes")
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RowError(
            "read", "row_not_utf8", f"byte {error.start} of the line is no UTF-8"
        ) from None
    csv.field_size_limit(LINE_BYTES)
    try:
        fields = next(csv.reader([text], strict=True))
    except csv.Error as error:
        if "end of data" in str(error):
            raise RowError("read", "row_quote", 'a field opens with " and does not close') from None
        fields = []  # quotes that are part of the caption: take the line as it stands
    if len(fields) < 4 and (unquoted := text.split(",", 3)) and len(unquoted) == 4:
        fields = unquoted
    if len(fields) < 4:
        raise RowError("read", "row_columns", f"{len(fields)} columns where there should be 4")
    if len(fields) > 4:  # commas of an unquoted caption
        fields = [*fields[:3], text.split(",", 3)[3]]
    return fields


def _video_id(field: str) -> str:
    field = field.strip()
    if _ID.fullmatch(field):
        return field
    if match := _URL.fullmatch(field):
        return match[1]
    raise RowError(
        "plan",
        "video_id_invalid",
        f"{field[:100]!r} is neither a YouTube id of 11 characters nor an address with one",
    )


def _microseconds(field: str, which: str) -> int:
    field = field.strip()
    try:
        # Only the forms of JSON: Python's own would take "1_0" and other scripts' digits.
        if re.fullmatch(r"[+-]?[0-9]{1,18}", field):
            return int(field)
        value = float(field) if field.isascii() and "_" not in field else math.nan
    except ValueError:
        raise RowError("plan", "time_invalid", f"{which} {field[:50]!r} is no number") from None
    if not math.isfinite(value) or abs(value) >= 1e18:
        raise RowError("plan", "time_invalid", f"{which} {field[:50]!r} is no finite time")
    return round(value)
