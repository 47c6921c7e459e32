"""A JSON file that is one object, an entry a video, read entry by entry in constant memory."""

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

import ijson

from pipelines.clip_request import ClipRequest, RowError
from pipelines.sources import row
from protos.v1.manifest_pb2 import Reject, SourceOptions

_BUFFER_BYTES = 1 << 16


class Span(NamedTuple):
    """A row as annotated: times in seconds, nothing checked."""

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
    """The rows of one file, numbered through all its videos.

    `spans` makes rows of a key and its value; where it raises RowError, the video is one row.
    """
    numbers = itertools.count(1)
    for span in _spans(file, spans):
        source_row = f"{name}:{next(numbers)}"
        told = isinstance(span, Span)
        yield row.clip_or_reject(
            functools.partial(_clip, span, source_row, options),
            source_row=source_row,
            video_id=span.video[: row.ID_CHARACTERS] if told else "",
            row=json.dumps(span, ensure_ascii=False) if told else "",
        )


def lists(value: object, *names: str) -> list[list]:
    """The lists of a video's entry, whose elements go together.

    Raises:
      RowError: a list is not there, or is not as long as the others: which belong together?

    >>> lists({"start": [0], "text": ["a man sings"]}, "start", "text")
    [[0], ['a man sings']]
    """
    found = [value.get(name) if isinstance(value, dict) else None for name in names]
    values = [each for each in found if isinstance(each, list)]
    if len(values) < len(names):
        wanted = " and ".join(repr(name) for name in names)
        raise RowError("read", "row_columns", f"not the lists {wanted}")
    if len({len(each) for each in values}) > 1:
        told = ", ".join(f"{len(each)} {name}" for name, each in zip(names, values, strict=True))
        raise RowError("read", "list_lengths", told)
    return values


def _spans(
    file: BinaryIO, spans: Callable[[str, object], Iterable[Span]]
) -> Iterator[Span | RowError]:
    """All videos' rows in the file's order, and an error where it ceases to be JSON."""
    for entry in _entries(file):
        if isinstance(entry, RowError):
            yield entry
            continue
        key, value = entry
        try:
            yield from spans(key, value)
        except RowError as error:
            yield RowError(error.stage, error.reason, f"video {key[:100]!r}: {error}")


def _entries(file: BinaryIO) -> Iterator[tuple[str, object] | RowError]:
    """Keys and values, one read of the file after another; a key may come twice.

    The parser yields a video when the next one begins, so damage costs the one before it, too.
    """
    whole = ijson.sendable_list()  # ijson.kvitems would drop those of a read that ends in an error
    parser = ijson.kvitems_coro(whole, "", use_float=True)
    block = b"first"
    while block:
        block = file.read(_BUFFER_BYTES)
        damage = None
        try:
            if block:
                parser.send(block)
            else:
                parser.close()
        except (ijson.JSONError, UnicodeDecodeError) as error:
            why = str(error).partition("\n")[0]
            damage = RowError(
                "read", "file_damaged", f"no JSON object from the last video on: {why}"
            )
        yield from whole
        whole.clear()
        if damage:
            yield damage
            return


def _clip(span: Span | RowError, source_row: str, options: SourceOptions) -> ClipRequest:
    if isinstance(span, RowError):
        raise span
    return row.clip(
        row.youtube_id(span.video),
        row.microseconds(span.start, "start", "s"),
        row.microseconds(span.end, "end", "s"),
        span.caption,
        source_row=source_row,
        options=options,
    )
