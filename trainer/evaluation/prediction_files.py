"""Prediction and ground-truth files of benchmarks, read so that a fault names file and row.

Nothing here loads JAX or TensorFlow: a file is scored in the time that it takes to read it.
"""

import csv
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

Path = str | os.PathLike[str]


class TaskFileError(ValueError):
    """A file that is not of its form, or does not go with the other; one line, naming the row."""


class Row(NamedTuple):
    """A row of a file, or an object of a list in one, and how messages call it."""

    where: str  # "FILE:LINE", or "FILE, entry N" from 0
    values: Any


def read_text(path: Path) -> str:
    """A whole file of UTF-8 text, a byte-order mark at its beginning left out.

    Raises:
      TaskFileError: it cannot be read, or is not UTF-8.
    """
    try:
        return pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TaskFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TaskFileError(f"{path}:{line}: not UTF-8 text") from None


def read_lines(path: Path) -> list[Row]:
    """The lines that are not empty, without white space around them; any kind of line end.

    Raises:
      TaskFileError: it cannot be read.
    """
    return [Row(f"{path}:{number}", line) for number, line in _lines(read_text(path))]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not str.splitlines, which also ends lines at characters that occur in texts.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      TaskFileError: it cannot be read, is not JSON, or has a name twice in one object.
    """
    return _parsed(path, read_text(path))


def read_objects(path: Path) -> list[Row]:
    """The objects of a JSON array, or of JSON Lines.

    Raises:
      TaskFileError: it cannot be read, is neither, or holds something else than objects; or it is
        empty, and not an empty array.
    """
    text = read_text(path)  # once: it may be a pipe
    first = text.lstrip()[:1]
    if not first:
        raise TaskFileError(f"{path} is empty: it must hold JSON")
    if first == "[":
        entries = _parsed(path, text)
        rows = [Row(f"{path}, entry {place}", one) for place, one in enumerate(entries)]
    else:
        wanted = ": the file must be a JSON array of objects, or have one object a line"
        rows = [
            Row(f"{path}:{number}", _parsed(path, line, number, wanted))
            for number, line in _lines(text)
        ]
    for where, value in rows:
        if not isinstance(value, dict):
            raise TaskFileError(f"{where}: must be a JSON object, got {short(value)}")
    return rows


def _parsed(path: Path, text: str, line: int = 1, wanted: str = "") -> Any:
    """What JSON text says that begins at a line of a file; `wanted` is added to messages."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        where, reason = line + error.lineno - 1, f"{error.msg} at column {error.colno}"
        raise TaskFileError(f"{path}:{where}: not JSON ({reason}){wanted}") from None
    except (ValueError, RecursionError) as error:  # a name twice; too many digits, or brackets
        place = str(path) if line == 1 else f"{path}:{line}"
        raise TaskFileError(f"{place}: not such JSON as is read here ({error}){wanted}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"an object has the name {short(twice)} twice")
    return found


def read_table(path: Path) -> tuple[Row, Iterator[Row]]:
    """The header and the rows of a CSV file; each row has as many fields as the header.

    Raises:
      TaskFileError: it cannot be read, is no CSV or is empty; on the way, a row has another length.
    """
    lines = read_csv(path)
    header = next(lines, None)
    if not header:
        raise TaskFileError(f"{path} is empty: its first line must be a header")

    def rows() -> Iterator[Row]:
        for where, fields in lines:
            if len(fields) != len(header.values):
                raise TaskFileError(
                    f"{where}: {len(fields)} fields where the header has {len(header.values)}"
                )
            yield Row(where, fields)

    return header, rows()


def read_csv(path: Path) -> Iterator[Row]:
    """The rows of a CSV file that are not empty.

    Raises:
      TaskFileError: it cannot be read or, on the way, is not CSV.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            while True:
                where = f"{path}:{lines.line_num + 1}"
                try:
                    fields = next(lines, None)
                except csv.Error as error:
                    raise TaskFileError(f"{where}: not CSV ({error})") from None
                if fields is None:
                    return
                if fields:
                    yield Row(where, fields)
    except (OSError, UnicodeDecodeError):
        read_text(path)  # says what is wrong, and in which line
        raise


def text_of(row: Row, *names: str) -> str:
    """The text, or the whole number as text, that an object has under the first name it has.

    Raises:
      TaskFileError: it has none of the names, or another kind of value there.

    >>> text_of(Row("a.json, entry 0", {"id": 7}), "question_id", "id")
    '7'
    """
    for name in names:
        if name in row.values:
            value = row.values[name]
            if isinstance(value, str) or type(value) is int:
                return str(value)
            raise TaskFileError(f"{row.where}: {name!r} must be a text, got {short(value)}")
    wanted = " or ".join(repr(name) for name in names)
    raise TaskFileError(f"{row.where}: {wanted} is missing")


def number(where: str, value: Any) -> float:
    """A finite number, from a text or from JSON.

    Raises:
      TaskFileError: it is something else.

    >>> number("scores.csv:2", "0.25")
    0.25
    """
    try:
        found = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    # Python's own 1_000, and digits of other scripts, are no numbers of a file.
    odd = isinstance(value, str) and ("_" in value or not value.isascii())
    if isinstance(value, bool) or odd or not math.isfinite(found):
        raise TaskFileError(f"{where}: {short(value)} is not a finite number")
    return found


def json_number(where: str, value: Any) -> float:
    """A finite number of JSON, where a text is none.

    Raises:
      TaskFileError: it is something else.

    >>> json_number("found.json", 1)
    1.0
    """
    if isinstance(value, str):
        raise TaskFileError(f"{where}: {short(value)} is a text, not a finite number")
    return number(where, value)


def short(value: Any) -> str:
    """A value as a message quotes it.

    >>> short("a" * 50)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…"
    """
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def some(names: list[str]) -> str:
    """The first of some names, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
