"""Readers of text files with one row per line: numbered lines, their text and delimited fields.

A quoted field may continue on the next lines. In ambiguous cases each line is a row, so that one
stray quote cannot consume the rows after it.
"""

import collections
import csv
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO, TypeVar

from pipelines.sources.clip_request import RowError

LINE_BYTES = 4 << 20  # maximum length of a line; a caption of 1 MB fits with any quoting

_BLOCK_BYTES = 1 << 16
_LINES_OF_ROW = 50  # maximum number of further lines in a quoted field

T = TypeVar("T")

# A row's fields by column. A RowError replaces an invalid field, or all fields of an invalid row.
Fields = Mapping[str, str | RowError] | RowError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    r"""Yield each line that is not white space, with its number in the file, from 1.

    A line is truncated just above LINE_BYTES, which bounds memory. A byte order mark is removed.
    Lines end with \n or \r\n, or with \r in a file that has no \n.
    """
    return ((number, line) for number, line in _all(file) if line.strip())


def _all(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    first = file.readline(LINE_BYTES + 1)
    old_mac = b"\r" in first and not first.endswith(b"\n")
    lines = _until_return(file, first) if old_mac else _until_newline(file, first)
    for number, line in enumerate(lines, 1):
        yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line


def _until_newline(file: BinaryIO, line: bytes) -> Iterator[bytes]:
    while line:
        rest = line
        while len(rest) > LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES + 1)
        yield line
        line = file.readline(LINE_BYTES + 1)


def _until_return(file: BinaryIO, first: bytes) -> Iterator[bytes]:
    block = first
    waiting = b""
    while block:
        *lines, waiting = re.split(rb"(?<=\r)(?!\n)|(?<=\n)", waiting[: LINE_BYTES + 1] + block)
        yield from lines
        block = file.read(_BLOCK_BYTES)
    if waiting:
        yield waiting[: LINE_BYTES + 1]


def text(line: bytes, quoted: bool = False) -> str:
    r"""Return a line as text, without its line end.

    Args:
      line: the line's bytes.
      quoted: whether the line may contain line ends within quotes, which the caller must check.

    Raises:
      RowError: the line is too long, is not UTF-8, or contains a \r although not `quoted`.
    """
    if len(line) > LINE_BYTES:
        raise RowError("read", "row_too_long", f"a line of more than {LINE_BYTES} bytes")
    try:
        found = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RowError(
            "read", "row_not_utf8", f"byte {error.start} of the line is no UTF-8"
        ) from None
    if "\r" in found and not quoted:
        raise _carriage_return()
    return found


def _carriage_return() -> RowError:
    return RowError(
        "read", "row_carriage_return", "a carriage return within the line: quote the field"
    )


def excerpt(line: bytes) -> str:
    """Return the beginning of a line, valid or not, for a reject."""
    return line[: 4 * 500].decode(errors="backslashreplace").rstrip("\r\n")


def fields(line: str, delimiter: str = ",") -> list[str]:
    r"""Return the fields of a delimited line.

    Raises:
      RowError: a quote is not closed on the line or is misplaced, or a \r occurs outside quotes.

    >>> fields('v1,0,"a man, smiling"')
    ['v1', '0', 'a man, smiling']
    """
    csv.field_size_limit(LINE_BYTES)
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        if "end of data" in str(error):
            raise RowError("read", "row_quote", 'a field opens with " and does not close') from None
        if "new-line" in str(error):
            raise _carriage_return() from None
        raise RowError(
            "read", "row_stray_quote", 'a field goes on after its closing "; double the inner ones'
        ) from None


class Rows:
    """The rows of a delimited file, each a line or several lines joined by a quoted field.

    Iteration yields each row's line number and bytes.
    """

    def __init__(self, file: BinaryIO, delimiter: str, columns: int = 0) -> None:
        """Read from a file, joining lines only to rows with exactly `columns` columns."""
        self.columns = columns
        self._delimiter = delimiter
        self._lines = _all(file)
        self._again: collections.deque[tuple[int, bytes]] = collections.deque()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while row := self._take():
            number, line = row
            if not line.strip():
                continue
            if line.count(b'"') % 2 and len(line) <= LINE_BYTES:
                line = self._joined(line)
            yield number, line

    def _take(self) -> tuple[int, bytes] | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _joined(self, line: bytes) -> bytes:
        """Return the line joined with the continuation of its last field, if unambiguous.

        The result must be a row with the right number of columns. No further line may be such a
        row by itself. Otherwise the line is returned unchanged.

        A line that closes the open quote looks like a row whose text contains a quote. It counts
        as a row by itself only if the open field is the last column: in another column the first
        line lacks columns, so it cannot be a row whose text begins with a quote.
        """
        if _shape(line, self._delimiter) != "open":
            return line
        taken: list[tuple[int, bytes]] = []
        whole = line
        while len(taken) < _LINES_OF_ROW and len(whole) <= LINE_BYTES and (next_ := self._take()):
            taken.append(next_)
            begun, whole = whole, whole + next_[1]
            if _shape(whole, self._delimiter) == "bad":  # No further line can mend it.
                break
            closes = next_[1].count(b'"') % 2
            if _shape(next_[1], self._delimiter) == self.columns and not (
                closes and _open_column(begun, self._delimiter) < self.columns
            ):
                break
            if closes:
                if _shape(whole, self._delimiter) == self.columns:
                    return whole
                break
        self._again.extendleft(reversed(taken))
        return line


def _shape(line: bytes, delimiter: str) -> int | str:
    """Return a row's number of columns, or "open" for an open quote, or "bad" for other faults."""
    try:
        return len(fields(text(line, quoted=True), delimiter))
    except RowError as error:
        return "open" if error.reason == "row_quote" else "bad"


def _open_column(line: bytes, delimiter: str) -> int:
    """Return the number, from 1, of the column whose quote is open at the end of the line."""
    return len(next(csv.reader([text(line, quoted=True)], delimiter=delimiter)))


def table(file: BinaryIO, delimiter: str = ",") -> Iterator[tuple[int, bytes, Fields]]:
    """Yield the rows below a header: line number, bytes, and fields by column or a RowError.

    A row must have a field for each column. An invalid header makes all rows invalid. A repeated
    column name makes the fields of that column invalid.
    """
    rows = Rows(file, delimiter)
    header: list[str] | RowError = []
    twice: dict[str, RowError] = {}
    for _, line in rows:
        try:
            header = [column.strip() for column in fields(text(line, quoted=True), delimiter)]
            rows.columns = len(header)
            twice = {
                column: RowError("read", "row_columns", f"two columns are named {column[:100]!r}")
                for column, count in collections.Counter(header).items()
                if count > 1
            }
        except RowError as error:
            header = error
        break
    for number, line in rows:
        if isinstance(header, RowError):
            yield number, line, header
            continue
        try:
            row = fields(text(line, quoted=True), delimiter)
            if len(row) != len(header):
                raise RowError(
                    "read",
                    "row_columns",
                    f"{len(row)} columns where the header has {len(header)}",
                )
            named: dict[str, str | RowError] = dict(zip(header, row, strict=True))
            yield number, line, named | twice if twice else named
        except RowError as error:
            yield number, line, error


def column(row: Mapping[str, T | RowError] | RowError, name: str) -> T:
    """Return a row's field by its column.

    Raises:
      RowError: the column is missing or ambiguous, or `row` is an error itself.
    """
    if isinstance(row, RowError):
        raise row
    if name not in row:
        raise RowError(
            "read", "row_columns", f"no column {name!r}; there are {', '.join(row):.200}"
        )
    field = row[name]
    if isinstance(field, RowError):
        raise field
    return field
