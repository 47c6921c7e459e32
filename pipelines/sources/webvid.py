"""WebVid annotations: a CSV with the columns videoid, contentUrl, duration, page_dir, name.

A row is a whole video. Its duration has the form PT00H00M26S (ISO 8601).
"""

import functools
import re
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources import clip_fields, lines
from pipelines.sources.clip_request import ClipRequest, RowError
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = "a CSV file with the columns videoid, duration (PT00H00M26S) and name"
OPTIONS = ("keep_empty_captions",)
SUBSETS = ()

_DURATION = re.compile(r"PT(?:(\d{1,4})H)?(?:(\d{1,4})M)?(?:(\d{1,6}(?:\.\d{1,6})?)S)?")


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per video, in the file's order."""
    for number, line, fields in lines.table(file):
        source_row = f"{name}:{number}"
        yield clip_fields.clip_or_reject(
            functools.partial(_clip, fields, source_row, options),
            source_row=source_row,
            row=lines.excerpt(line),
        )


def _clip(fields: lines.Fields, source_row: str, options: SourceOptions) -> ClipRequest:
    return clip_fields.clip(
        clip_fields.plain_id(lines.column(fields, "videoid")),
        0,
        duration_us(lines.column(fields, "duration")),
        lines.column(fields, "name"),
        source_row=source_row,
        options=options,
    )


def duration_us(text: str) -> int:
    """Convert an ISO 8601 duration of hours, minutes and seconds to microseconds.

    Raises:
      RowError: the text is not such a duration.

    >>> duration_us("PT00H01M26S")
    86000000
    """
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise RowError("plan", "time_invalid", f"duration {text[:50]!r} is not as PT00H00M26S")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return round((hours * 3600 + minutes * 60 + seconds) * 1_000_000)
