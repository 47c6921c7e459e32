"""Text files a row a line: lines, their text, and the fields of delimited ones.

A row never spans lines, so that one stray quote cannot swallow the rows after it.
"""

import csv
from collections.abc import Iterator, Mapping
from typing import BinaryIO, TypeVar

from pipelines.clip_request import RowError

LINE_BYTES = 4 << 20  # room for a caption of 1 MB in any quoting

T = TypeVar("T")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines that are not white space, each cut where it passes LINE_BYTES.

    So no file can fill the memory. A byte order mark is left out.
    """
    first = True
    while line := file.readline(LINE_BYTES + 1):
        rest = line
        while len(rest) > LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES + 1)
        if first:
            line, first = line.removeprefix(_BYTE_ORDER_MARK), False
        if line.strip():
            yield line


def text(line: bytes) -> str:
    """A line as text, without its end.

    Raises:
      RowError: it is too long or no UTF-8.
    """
    if len(line) > LINE_BYTES:
        raise RowError("read", "row_too_long", f"a line of more than {LINE_BYTES} bytes")
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RowError(
            "read", "row_not_utf8", f"byte {error.start} of the line is no UTF-8"
        ) from None


def excerpt(line: bytes) -> str:
    """The beginning of a line, good or bad, for a reject."""
    return line[: 4 * 500].decode(errors="backslashreplace").rstrip("\r\n")


def fields(line: str, delimiter: str = ",") -> list[str]:
    r"""The fields of a delimited line.

    Raises:
      RowError: a quote is not closed on the line, or stands where none may.

    >>> fields('v1,0,"a man, smiling"')
    ['v1', '0', 'a man, smiling']
    """
    csv.field_size_limit(LINE_BYTES)
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        if "end of data" in str(error):
            raise RowError("read", "row_quote", 'a field opens with " and does not close') from None
        raise RowError(
            "read", "row_stray_quote", 'a field goes on after its closing "; double the inner ones'
        ) from None


def table(
    file: BinaryIO, delimiter: str = ","
) -> Iterator[tuple[bytes, dict[str, str] | RowError]]:
    """The rows below a header line: each line, and its fields by column or what is wrong with it.

    A row must have a field for each column; of a header that cannot be read, all rows are wrong.
    """
    rows = lines(file)
    header: list[str] | RowError = []
    for line in rows:
        try:
            header = [column.strip() for column in fields(text(line), delimiter)]
        except RowError as error:
            header = error
        break
    for line in rows:
        if isinstance(header, RowError):
            yield line, header
            continue
        try:
            row = fields(text(line), delimiter)
            if len(row) != len(header):
                raise RowError(
                    "read",
                    "row_columns",
                    f"{len(row)} columns where the header has {len(header)}",
                )
            yield line, dict(zip(header, row, strict=True))
        except RowError as error:
            yield line, error


def column(row: Mapping[str, T] | RowError, name: str) -> T:
    """A row's field by its column.

    Raises:
      RowError: there is no such column, or `row` is an error itself.
    """
    if isinstance(row, RowError):
        raise row
    if name not in row:
        raise RowError(
            "read", "row_columns", f"no column {name!r}; there are {', '.join(row):.200}"
        )
    return row[name]
