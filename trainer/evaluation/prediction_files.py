"""Readers of benchmarks' prediction and ground-truth files, whose errors name file and row.

This module loads neither JAX nor TensorFlow, so that scoring takes only the time to read a file.
"""

import csv
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trainer.errors import UserError

Path = str | os.PathLike[str]


class TaskFileError(UserError, ValueError):
    """A fault in a file, or a mismatch between files; the message is one line and names the row."""


class Row(NamedTuple):
    """A row of a file, or an object of a list in a file, and its name in messages."""

    where: str  # "FILE:LINE", or "FILE, entry N" from 0
    values: Any


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text, without a byte-order mark at its start.

    Raises:
      TaskFileError: the file cannot be read, or is not UTF-8.
    """
    try:
        return pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TaskFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TaskFileError(f"{path}:{line}: not UTF-8 text") from None


def read_lines(path: Path) -> list[Row]:
    """Read the lines that are not empty, stripped of white space; any kind of line end is valid.

    Raises:
      TaskFileError: the file cannot be read, or is not UTF-8.
    """
    return [Row(f"{path}:{number}", line) for number, line in _lines(read_text(path))]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # str.splitlines would also end lines at characters that occur in texts.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      TaskFileError: the file cannot be read, is not JSON, or has a name twice in one object.
    """
    return _parsed(path, read_text(path))


def read_objects(path: Path) -> list[Row]:
    """Read the objects of a JSON array, or of JSON Lines.

    Raises:
      TaskFileError: the file cannot be read, is neither, or has values other than objects. An empty
        file is an error, an empty array is not.
    """
    text = read_text(path)  # The file may be a pipe, which can be read only once.
    first = text.lstrip()[:1]
    if not first:
        raise TaskFileError(f"{path} is empty: give a JSON file")
    if first == "[":
        entries = _parsed(path, text)
        rows = [Row(f"{path}, entry {place}", one) for place, one in enumerate(entries)]
    else:
        wanted = ": give a JSON array of objects, or one object per line"
        rows = [
            Row(f"{path}:{number}", _parsed(path, line, number, wanted))
            for number, line in _lines(text)
        ]
    for where, value in rows:
        if not isinstance(value, dict):
            raise TaskFileError(f"{where}: must be a JSON object, got {shorten(value)}")
    return rows


def _parsed(path: Path, text: str, line: int = 1, wanted: str = "") -> Any:
    """Parse JSON text that starts at line `line` of a file; `wanted` is appended to messages."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        where, reason = line + error.lineno - 1, f"{error.msg} at column {error.colno}"
        raise TaskFileError(f"{path}:{where}: not JSON ({reason}){wanted}") from None
    except (ValueError, RecursionError) as error:  # a repeated name, or too many digits or brackets
        place = str(path) if line == 1 else f"{path}:{line}"
        raise TaskFileError(f"{place}: invalid JSON ({error}){wanted}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"an object has the key {shorten(twice)} twice")
    return found


def read_table(path: Path) -> tuple[Row, Iterator[Row]]:
    """Return the header and the rows of a CSV file; each row has as many fields as the header.

    Raises:
      TaskFileError: the file cannot be read, is not CSV or is empty. While iterating: a row has
        another number of fields.
    """
    lines = read_csv(path)
    header = next(lines, None)
    if not header:
        raise TaskFileError(f"{path} is empty: the first line must be a header")

    def rows() -> Iterator[Row]:
        for where, fields in lines:
            if len(fields) != len(header.values):
                raise TaskFileError(
                    f"{where}: {len(fields)} fields, but the header has {len(header.values)}"
                )
            yield Row(where, fields)

    return header, rows()


def read_csv(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file that are not empty.

    Raises:
      TaskFileError: the file cannot be read, or is not CSV.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
            lines = csv.reader(file, strict=True)
            while True:
                where = f"{path}:{lines.line_num + 1}"
                try:
                    fields = next(lines, None)
                except csv.Error as error:
                    raise TaskFileError(f"{where}: not CSV ({error})") from None
                if fields is None:
                    return
                if not all(map(_is_utf8, fields)):
                    raise TaskFileError(f"{path}:{lines.line_num}: not UTF-8 text")
                if fields:
                    yield Row(where, fields)
    except OSError as error:
        raise TaskFileError(f"{path} cannot be read: {error.strerror}") from error


def _is_utf8(field: str) -> bool:
    # Bytes that are not UTF-8 were read as surrogates. A pipe cannot be read again to find them.
    return field.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in field)


def text_of(row: Row, *names: str) -> str:
    """Return an object's text or integer, as text, under the first of `names` that it has.

    Raises:
      TaskFileError: the object has none of the names, or the value has another type.

    >>> text_of(Row("a.json, entry 0", {"id": 7}), "question_id", "id")
    '7'
    """
    for name in names:
        if name in row.values:
            value = row.values[name]
            if isinstance(value, str) or type(value) is int:
                return str(value)
            raise TaskFileError(f"{row.where}: {name!r} must be a string, got {shorten(value)}")
    wanted = " or ".join(repr(name) for name in names)
    raise TaskFileError(f"{row.where}: {wanted} is missing")


def number(where: str, value: Any) -> float:
    """Return a finite number from a text or from JSON.

    Raises:
      TaskFileError: the value is not a finite number.

    >>> number("scores.csv:2", "0.25")
    0.25
    """
    try:
        found = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    # Python's float also accepts 1_000 and digits of other scripts, which are not valid in a file.
    odd = isinstance(value, str) and ("_" in value or not value.isascii())
    if isinstance(value, bool) or odd or not math.isfinite(found):
        raise TaskFileError(f"{where}: {shorten(value)} is not a finite number")
    return found


def json_number(where: str, value: Any) -> float:
    """Return a finite number from JSON; a text is an error.

    Raises:
      TaskFileError: the value is not a finite number.

    >>> json_number("found.json", 1)
    1.0
    """
    if isinstance(value, str):
        raise TaskFileError(f"{where}: {shorten(value)} is a string, not a finite number")
    return number(where, value)


def shorten(value: Any) -> str:
    """Return a value's repr for a message, in at most 40 characters.

    >>> shorten("a" * 50)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…"
    """
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def single_path(paths: Sequence[Path], kind: str) -> Path:
    """Return the one path of a list.

    Raises:
      TaskFileError: there is none, or a second one; names the kind of file and the second.
    """
    if len(paths) != 1:
        second = f", the second is {paths[1]}" if paths else ""
        raise TaskFileError(f"{len(paths)} files of {kind}{second}: give one")
    return paths[0]


def list_names(names: list[str]) -> str:
    """Return the first three names, and the number of further names.

    >>> list_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
