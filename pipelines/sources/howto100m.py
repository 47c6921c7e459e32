"""HowTo100M narration: raw_caption.json or caption.json, one entry per video, or a CSV per video.

    {"nVbIUDjzWY4": {"start": [0.41, …], "end": [3.91, …], "text": ["check pic tonight", …]}}

One object holds 136 million clips. caption.json lacks stop words, so noun chunks require
raw_caption.json. A CSV is named <YouTube id>.csv and has a header: start,end,text.
"""

import functools
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources import clip_fields, json_object, lines
from pipelines.sources.annotation_file import plain_name
from pipelines.sources.clip_request import ClipRequest
from pipelines.sources.json_object import Span
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    'a JSON object that maps "<YouTube id>" to {"start", "end", "text"}, or files '
    "<YouTube id>.csv with the columns start, end and text; in seconds"
)
OPTIONS = ("keep_empty_captions", "widen_to_us")
SUBSETS = ()


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per line of narration, in the file's order."""
    if plain_name(name).endswith(".csv"):
        return _read_csv(file, name, options)
    return json_object.read(file, name, options, _lines)


def _lines(key: str, value: object) -> Iterator[Span]:
    starts, ends, texts = json_object.lists(value, "start", "end", "text")
    return (Span(key, *line) for line in zip(starts, ends, texts, strict=True))


def _read_csv(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    video = plain_name(name).removesuffix(".csv")
    for number, line, fields in lines.table(file):
        source_row = f"{name}:{number}"
        yield clip_fields.clip_or_reject(
            functools.partial(_clip, video, fields, source_row, options),
            source_row=source_row,
            video_id=video,
            row=lines.excerpt(line),
        )


def _clip(video: str, fields: lines.Fields, source_row: str, options: SourceOptions) -> ClipRequest:
    return clip_fields.clip(
        clip_fields.youtube_id(video),
        clip_fields.microseconds(lines.column(fields, "start"), "start", "s"),
        clip_fields.microseconds(lines.column(fields, "end"), "end", "s"),
        lines.column(fields, "text"),
        source_row=source_row,
        options=options,
    )
