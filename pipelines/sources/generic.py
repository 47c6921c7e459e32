"""Any annotations: CSV, TSV, JSON Lines or Parquet, told by the file's extension.

The user names the columns. Labels are a list, or a text with ";" between them.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from pipelines.clip_request import ClipRequest, RowError
from pipelines.sources import lines, row
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    "a .csv, .tsv, .jsonl or .parquet file; its columns, unless --columns renames them: video "
    "(an id), start (left out: 0), end, caption, labels (may be left out)"
)
OPTIONS = ("keep_empty_captions", "widen_to_us", "columns", "time_unit")

COLUMNS = ("video", "start", "end", "caption", "labels")
_BATCH_ROWS = 1024


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """The rows of one file, in order."""
    extension = name.rpartition(".")[2].lower()
    if extension == "parquet":
        rows = _parquet(file, options)
    elif extension in ("jsonl", "ndjson"):
        rows = _json_lines(file)
    else:
        delimiter = "\t" if extension == "tsv" else ","
        rows = ((lines.excerpt(line), f) for line, f in lines.table(file, delimiter))
    for number, (text, fields) in enumerate(rows, 1):
        source_row = f"{name}:{number}"
        yield row.clip_or_reject(
            functools.partial(_clip, fields, source_row, options), source_row=source_row, row=text
        )


def parquet_rows(file: BinaryIO) -> int:
    """The number of rows that a Parquet file states, or 0 if it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file).metadata.num_rows
    except (pyarrow.ArrowException, OSError):
        return 0


def _json_lines(file: BinaryIO) -> Iterator[tuple[str, dict[str, object] | RowError]]:
    for line in lines.lines(file):
        try:
            fields = json.loads(lines.text(line))
            if not isinstance(fields, dict):
                raise ValueError
            yield lines.excerpt(line), fields
        except RowError as error:
            yield lines.excerpt(line), error
        except (ValueError, RecursionError):
            error = RowError("read", "row_columns", "the line is no JSON object")
            yield lines.excerpt(line), error


def _parquet(
    file: BinaryIO, options: SourceOptions
) -> Iterator[tuple[str, dict[str, object] | RowError]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        wanted = {options.columns.get(name, name) for name in COLUMNS}
        columns = [name for name in table.schema_arrow.names if name in wanted]
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            for fields in batch.to_pylist():
                yield json.dumps(fields, ensure_ascii=False, default=str), fields
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).partition("\n")[0]
        yield "", RowError("read", "file_damaged", f"no Parquet from here on: {why:.200}")


def _clip(
    fields: Mapping[str, object] | RowError, source_row: str, options: SourceOptions
) -> ClipRequest:
    def field(name: str) -> object:
        return lines.column(fields, options.columns.get(name, name))

    def field_if_any(name: str, otherwise: object) -> object:
        named = name in options.columns or (isinstance(fields, Mapping) and name in fields)
        return field(name) if named else otherwise

    unit = options.time_unit or "s"
    return row.clip(
        row.plain_id(field("video")),
        row.microseconds(field_if_any("start", 0), "start", unit),
        row.microseconds(field("end"), "end", unit),
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
    if not isinstance(field, list) or not all(map(row.is_text, field)):
        raise RowError("plan", "labels_invalid", f"labels {field!r:.100} are no list of texts")
    return tuple(label.strip() for label in field if label.strip())
