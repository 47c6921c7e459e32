"""A reader of JSON files that are one object, with one entry per video, in constant memory."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from pipelines.sources import clip_fields
from pipelines.sources.clip_request import AnnotationError, ClipRequest, RowError
from pipelines.sources.json_stream import JsonStream, StreamError
from protos.v1.manifest_pb2 import Reject, SourceOptions


class Span(NamedTuple):
    """An unchecked row as annotated, with times in seconds."""

    video: str  # YouTube id
    start: object
    end: object
    caption: object


def read(
    file: BinaryIO,
    name: str,
    options: SourceOptions,
    spans: Callable[[str, object], Iterable[Span]],
) -> Iterator[ClipRequest | Reject]:
    """Yield the rows of one file, numbered consecutively over its videos.

    `spans` returns the rows of a key and its value. If it raises RowError, the video becomes one
    reject.

    Raises:
      AnnotationError: the file is not a JSON object from some position on, so rows would be lost.
    """
    numbers = itertools.count(1)
    for video, span in _spans(_entries(file, name), spans):
        source_row = f"{name}:{next(numbers)}"
        try:
            yield _clip(span, source_row, options)
        except RowError as error:
            text = json.dumps(span, ensure_ascii=False) if isinstance(span, Span) else ""
            yield clip_fields.rejected(error, source_row=source_row, video_id=video, row=text)


def lists(value: object, *names: str) -> list[list]:
    """Return the lists of a video's entry, whose elements correspond by index.

    Raises:
      RowError: a list is missing, or the lists' lengths differ.

    >>> lists({"start": [0], "text": ["a man sings"]}, "start", "text")
    [[0], ['a man sings']]
    """
    found = [value.get(name) if isinstance(value, dict) else None for name in names]
    values = [each for each in found if isinstance(each, list)]
    if len(values) < len(names):
        wanted = " and ".join(repr(name) for name in names)
        raise RowError("read", "row_columns", f"not the lists {wanted}")
    if len({len(each) for each in values}) > 1:
        lengths = ", ".join(f"{len(each)} {name}" for name, each in zip(names, values, strict=True))
        raise RowError("read", "list_lengths", lengths)
    return values


def _spans(
    entries: Iterable[tuple[str, object]], spans: Callable[[str, object], Iterable[Span]]
) -> Iterator[tuple[str, Span | RowError]]:
    """Yield each row with its video, or an error for a video without readable rows."""
    for key, value in entries:
        try:
            if isinstance(value, RowError):
                raise value
            annotated = False
            for span in spans(key, value):
                annotated = True
                yield span.video, span
            if not annotated:
                raise RowError("plan", "not_annotated", "its lists are empty")
        except RowError as error:
            video = key.removeprefix("v_")
            yield video, RowError(error.stage, error.reason, f"video {key[:100]!r}: {error}")


def _entries(file: BinaryIO, name: str) -> Iterator[tuple[str, object]]:
    """Yield the names and values of a file's single object, including repeated names."""
    stream = JsonStream(file)
    try:
        for key in stream.names():
            yield key, stream.value()
        stream.end()
    except StreamError as error:
        raise AnnotationError(
            f"{name} is not valid JSON from {error}: repair it or download it again"
        ) from None


def _clip(span: Span | RowError, source_row: str, options: SourceOptions) -> ClipRequest:
    if isinstance(span, RowError):
        raise span
    return clip_fields.clip(
        clip_fields.youtube_id(span.video),
        clip_fields.microseconds(span.start, "start", "s"),
        clip_fields.microseconds(span.end, "end", "s"),
        span.caption,
        source_row=source_row,
        options=options,
    )
