"""A parser of JSON from untrusted text, which limits names, integers and depth."""

import functools
import json
import re
from typing import Any

from pipelines.sources.clip_request import RowError

MAX_DEPTH = 64  # maximum levels of lists and objects; annotations have four

_INT_DIGITS = 400  # maximum digits of an integer; longer ones become floats, infinite past 1e308
_SPACE = re.compile(r"[ \t\n\r]*")


class SeveralValuesError(RowError):
    """An error for a line with more text after its value."""


def decode(text: str, start: int = 0) -> tuple[object, int]:
    """Return the value that begins at `start`, and the index of its end.

    A RowError replaces a value with more than MAX_DEPTH levels. It also replaces a value in which
    an object repeats a name, because one of the two would be lost. NaN and infinities are numbers,
    as in Python's json.

    Raises:
      json.JSONDecodeError: no complete value begins there.
      RecursionError: the value nests too deeply to find its end.

    >>> decode('[1, NaN] and more')
    ([1, nan], 8)
    >>> decode('{"a": 1, "a": 2}')
    (RowError("an object has the name 'a' twice"), 16)
    """
    try:
        value, end = _ONCE.raw_decode(text, start)
    except json.JSONDecodeError:
        raise
    except ValueError:  # A repeated name, or an integer of thousands of digits.
        twice: list[str] = []
        hook = functools.partial(_noted, twice)
        careful = json.JSONDecoder(object_pairs_hook=hook, parse_int=_bounded)
        value, end = careful.raw_decode(text, start)
        if twice:
            name = twice[0][:100]
            return RowError("read", "row_columns", f"an object has the name {name!r} twice"), end
    brackets = text.count("[", start, end) + text.count("{", start, end)
    if brackets > MAX_DEPTH and _too_deep(value):
        return RowError("read", "row_too_deep", f"more than {MAX_DEPTH} levels of brackets"), end
    return value, end


def loads(text: str) -> object:
    """Return the value of a text that holds exactly one.

    Raises:
      RowError: the value repeats a name, has too many levels, or is followed by more text.
      ValueError: the text is not JSON.

    >>> loads(' {"videos": []} ')
    {'videos': []}
    """
    start = skip_space(text, 0)
    try:
        value, end = decode(text, start)
    except RecursionError:
        raise RowError("read", "row_too_deep", "too many levels of brackets") from None
    if (end := skip_space(text, end)) < len(text):
        message = f"more after the value's end at character {end + 1}"
        raise SeveralValuesError("read", "row_columns", message)
    if isinstance(value, RowError):
        raise value
    return value


def object_of(line: str) -> dict[str, object]:
    """Return the object of a line that holds exactly one.

    Raises:
      RowError: the line is not an object, or the object repeats a name, has too many levels, or is
        followed by more text.

    >>> object_of('{"end": 7}')
    {'end': 7}
    """
    try:
        value = loads(line)
    except RowError:
        raise
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RowError("read", "row_columns", "the line is no JSON object")
    return value


def skip_space(text: str, start: int) -> int:
    """Return the index of the first character from `start` on that is not JSON white space."""
    match = _SPACE.match(text, start)
    assert match
    return match.end()


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


_ONCE = json.JSONDecoder(object_pairs_hook=_once)


def _noted(twice: list[str], pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of the pairs, and append its repeated names to `twice`."""
    seen: set[str] = set()
    twice += [name for name, _ in pairs if name in seen or seen.add(name)]
    return dict(pairs)


def _bounded(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS else float(digits)


def _too_deep(value: Any) -> bool:
    """Return whether lists and objects nest deeper than MAX_DEPTH, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [one for one in level if isinstance(one, list | dict)]
        if not level:
            return False
        level = [
            child for one in level for child in (one.values() if isinstance(one, dict) else one)
        ]
    return True
