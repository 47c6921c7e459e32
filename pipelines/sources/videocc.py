"""VideoCC's annotation file, with the video, start, end and caption of one clip per line.

The header, the video names (URLs or YouTube ids) and the quoting of commas in captions are
undocumented. Public readers disagree about them, so all forms are accepted.
"""

import functools
import re
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources import clip_fields, lines
from pipelines.sources.clip_request import ClipRequest, RowError
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = "a CSV file with the columns video URL or YouTube id, start µs, end µs, caption"
OPTIONS = ("keep_empty_captions",)
SUBSETS = ()

_URL = re.compile(
    r"(?:https?://)?(?:www\.|m\.)?(?:youtube\.com/(?:watch\?(?:[^#]*&)?v=|embed/|shorts/|v/)|youtu\.be/)"
    r"([A-Za-z0-9_-]{11})(?:[?&#/].*)?"
)


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield the rows of one file in order."""
    for place, (number, line) in enumerate(lines.Rows(file, ",", columns=4)):
        if place == 0 and _is_header(line):
            continue
        source_row = f"{name}:{number}"
        yield clip_fields.clip_or_reject(
            functools.partial(parse, line, source_row, options),
            source_row=source_row,
            row=lines.excerpt(line),
        )


def parse(line: bytes, source_row: str, options: SourceOptions) -> ClipRequest:
    """Parse one line to a clip.

    Raises:
      RowError: the line is not a valid row.

    >>> line = b"https://youtu.be/dQw4w9WgXcQ,0,9e6,a man sings, badly"
    >>> parse(line, "a.csv:1", SourceOptions()).caption
    'a man sings, badly'
    """
    video, start, end, caption = _columns(line)
    return clip_fields.clip(
        _video_id(video),
        clip_fields.microseconds(start, "start", "us"),
        clip_fields.microseconds(end, "end", "us"),
        caption,
        source_row=source_row,
        options=options,
    )


def _is_header(line: bytes) -> bool:
    """Return whether both times are words such as "start", and not numbers, NaN or infinity."""
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
    text = lines.text(line, quoted=True)
    try:
        fields = lines.fields(text)
    except RowError as error:
        if error.reason != "row_stray_quote":
            raise
        fields = []  # The quotes are part of the caption, so the line is split without quoting.
    if len(fields) != 4:
        text = lines.text(line)
    if len(fields) < 4 and (unquoted := text.split(",", 3)) and len(unquoted) == 4:
        fields = unquoted
    if len(fields) < 4:
        raise RowError("read", "row_columns", f"{len(fields)} columns where there should be 4")
    if len(fields) > 4:  # The unquoted caption contains commas.
        fields = [*fields[:3], text.split(",", 3)[3]]
    return fields


def _video_id(field: str) -> str:
    field = field.strip()
    if match := _URL.fullmatch(field):
        return match[1]
    return clip_fields.youtube_id(field)
