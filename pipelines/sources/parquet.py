"""A reader of rows of Parquet files, whose values may have any type and range."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from pipelines.sources.clip_request import AnnotationError, RowError

_BATCH_ROWS = 1024
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def count(file: BinaryIO) -> int:
    """Return the number of rows that a Parquet file states, or 0 if it is not a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file).metadata.num_rows
    except (pyarrow.ArrowException, OSError):
        return 0


def column_names(file: BinaryIO) -> list[str]:
    """Return the names of a Parquet file's columns, or none if it is not a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file).schema_arrow.names
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
        return []


def rows(
    file: BinaryIO, name: str, wanted: Sequence[str]
) -> Iterator[tuple[int, None, Mapping[str, object]]]:
    """Yield each row's number, from 1, and its fields by column.

    Durations and times of day are timedeltas. A RowError replaces a value without a Python type or
    out of its range. It also replaces all values of a repeated column name.

    Args:
      file: the Parquet file, which must be seekable.
      name: the file's name, for messages.
      wanted: names of the columns to read.

    Raises:
      AnnotationError: the file cannot be read completely.
    """
    import pyarrow
    import pyarrow.parquet

    if not file.seekable():
        raise AnnotationError(f"{name} is a compressed Parquet file: unpack it")
    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
        names = table.schema_arrow.names
        columns = [column for column in dict.fromkeys(names) if column in wanted]
        twice = {
            column: RowError("read", "row_columns", f"two columns are named {column[:100]!r}")
            for column in columns
            if names.count(column) > 1
        }
        once = [column for column in columns if column not in twice]
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=once):
            values = {column: _values(batch.column(column)) for column in once}
            for place in range(batch.num_rows):
                number += 1
                fields = {column: values[column][place] for column in once}
                yield number, None, {**fields, **twice}
        stated = table.metadata.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).partition("\n")[0]
        raise AnnotationError(
            f"{name} is not valid Parquet from row {number + 1}: {why:.200}: "
            "repair it or download it again"
        ) from None
    if number != stated:
        raise AnnotationError(
            f"{name} has {number:,} rows, but its metadata states {stated:,}: download it again"
        )


def excerpt(fields: Mapping[str, object] | RowError) -> str:
    """Return a row as JSON, for a reject."""
    return json.dumps(fields, ensure_ascii=False, default=str)


def _values(column: Any) -> list[object]:
    """Return a column's values as Python values, with a RowError for each invalid value."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_duration(kind) or pyarrow.types.is_time(kind):
        whole = column.cast("int32" if kind.bit_width == 32 else "int64")
        scale = _NANOSECONDS[kind.unit]
        return [_timedelta(value, scale) for value in whole.to_pylist()]
    if pyarrow.types.is_temporal(kind):  # A date is never a time within a video.
        return [RowError("plan", "time_invalid", f"a column of {kind}, not of numbers")] * len(
            column
        )
    try:
        return column.to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError):  # Includes invalid UTF-8.
        return [_value(scalar) for scalar in column]


def _timedelta(value: int | None, scale: int) -> datetime.timedelta | RowError | None:
    if value is None:
        return None
    try:
        return datetime.timedelta(microseconds=round(value * scale / 1000))
    except OverflowError:
        return RowError("plan", "time_invalid", f"a duration of {value} × {scale} ns")


def _value(scalar: Any) -> object:
    import pyarrow

    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return RowError("read", "row_not_utf8", f"byte {error.start} of a text is no UTF-8")
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        why = str(error).partition("\n")[0]
        return RowError("plan", "time_invalid", f"a value of {scalar.type}: {why:.100}")
