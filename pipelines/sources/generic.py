"""User-defined annotations in CSV, TSV, JSON Lines or Parquet.

The file's extension determines its format, or else its first bytes. The user names the columns.
Labels are a list, or a text with labels separated by ";". Repeated labels count once.
"""

import io
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TypeGuard, cast

from pipelines.sources import clip_fields, json_text, lines, parquet
from pipelines.sources.annotation_file import plain_name
from pipelines.sources.clip_request import ClipRequest, RowError
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    "a .csv, .tsv, .jsonl or .parquet file with the columns video (an id), start (optional, "
    "default 0), end, caption and labels (optional); --columns accepts other names"
)
OPTIONS = ("keep_empty_captions", "widen_to_us", "columns", "time_unit")
SUBSETS = ()

COLUMNS = ("video", "start", "end", "caption", "labels")
_EXTENSIONS = ("csv", "tsv", "jsonl", "ndjson", "parquet")
_ROWS_OF_COLUMNS = 100  # first rows that show which columns JSON Lines have
_DELIMITER = {"csv": ",", "tsv": "\t"}
# The optional columns: what their absence means, and words in other names for them.
_WITHOUT = {"start": "every clip starts at 0", "labels": "no clip has labels"}
_ALIKE = {
    "start": ("start", "begin", "from", "onset"),
    "labels": ("label", "class", "tag", "categor"),
}


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield the rows of one file in order.

    Raises:
      AnnotationError: a Parquet file cannot be read completely.
    """
    file, form = _form(file, name)
    if form == "parquet":
        rows = parquet.rows(file, name, [options.columns.get(name, name) for name in COLUMNS])
    elif form in ("jsonl", "ndjson"):
        rows = _json_lines(file)
    else:
        rows = lines.table(file, _DELIMITER[form])
    for number, line, fields in rows:
        source_row = f"{name}:{number}"
        try:
            yield _clip(fields, source_row, options)
        except RowError as error:
            video = fields.get(options.columns.get("video", "video")) if _has(fields) else None
            yield clip_fields.rejected(
                error,
                source_row=source_row,
                video_id=video.strip() if isinstance(video, str) else "",
                row=lines.excerpt(line) if isinstance(line, bytes) else parquet.excerpt(fields),
            )


def cautions(file: BinaryIO, name: str, options: SourceOptions) -> list[str]:
    """Return a warning for each optional column that is missing while another may be meant."""
    file, form = _form(file, name)
    if form == "parquet":
        present = parquet.column_names(file) if file.seekable() else []
    else:
        json_lines = form in ("jsonl", "ndjson")
        rows = _json_lines(file) if json_lines else lines.table(file, _DELIMITER[form])
        first = (fields for *_, fields in itertools.islice(rows, _ROWS_OF_COLUMNS))
        present = list(dict.fromkeys(name for fields in first if _has(fields) for name in fields))
    read = {options.columns.get(column, column) for column in COLUMNS}
    unread = [column for column in present if column not in read]
    found = []
    for column, effect in _WITHOUT.items():
        alike = [one for one in unread if any(word in one.lower() for word in _ALIKE[column])]
        if options.columns.get(column, column) not in present and alike:
            found.append(
                f"{name} has no column {column!r}, so {effect}. Its column {alike[0][:100]!r} is "
                f"not read: add --columns {column}={alike[0][:100]} to read it"
            )
    return found


def _has(fields: Mapping[str, object] | RowError) -> TypeGuard[Mapping[str, object]]:
    return not isinstance(fields, RowError)


def _form(file: BinaryIO, name: str) -> tuple[BinaryIO, str]:
    """Return the file, and its format from its extension or else from its first bytes."""
    extension = plain_name(name).rpartition(".")[2].lower()
    if extension in _EXTENSIONS:
        return file, extension
    file = file if isinstance(file, io.BufferedReader) else _buffered(file)
    first = file.peek(1 << 16)
    # "PAR1" alone may be the name of a column. Parquet's next byte is its first field.
    if first.startswith(b"PAR1\x15"):
        return file, "parquet"
    first = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    if first.startswith(b"{"):
        return file, "jsonl"
    header = first.partition(b"\n")[0]
    return file, "tsv" if b"\t" in header and b"," not in header else "csv"


def _buffered(file: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, file))


def _json_lines(
    file: BinaryIO,
) -> Iterator[tuple[int, bytes, Mapping[str, object] | RowError]]:
    for number, line in lines.numbered(file):
        try:
            yield number, line, json_text.object_of(lines.text(line, quoted=True))
        except RowError as error:
            yield number, line, error


def _clip(
    fields: Mapping[str, Any] | RowError, source_row: str, options: SourceOptions
) -> ClipRequest:
    def field(name: str) -> object:
        return lines.column(fields, options.columns.get(name, name))

    def field_if_any(name: str, otherwise: object) -> object:
        named = name in options.columns or (isinstance(fields, Mapping) and name in fields)
        return field(name) if named else otherwise

    unit = options.time_unit or "s"
    return clip_fields.clip(
        clip_fields.any_id(field("video")),
        clip_fields.microseconds(field_if_any("start", 0), "start", unit),
        clip_fields.microseconds(field("end"), "end", unit),
        field("caption"),
        source_row=source_row,
        options=options,
        labels=_labels(field_if_any("labels", None)),
    )


def _labels(field: object) -> tuple[str, ...]:
    if field is None:
        return ()
    if isinstance(field, str):
        field = field.split(";")
    if not isinstance(field, list) or not all(map(clip_fields.is_text, field)):
        raise RowError("plan", "labels_invalid", f"labels {field!r:.100} are no list of texts")
    return tuple(dict.fromkeys(label.strip() for label in field if label.strip()))
