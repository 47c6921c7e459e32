"""A strict JSON parser for files that may be damaged or forged; it raises only ValueError."""

import json
from typing import Any


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Parse the one JSON object of a file or a line.

    Raises:
      ValueError: the data is not UTF-8, not JSON, nested too deeply or no object, or an object
        repeats a name, which would lose a value.

    >>> parse_object(b'{"step": 1}')
    {'step': 1}
    >>> parse_object('{"step": 1, "step": 2}')
    Traceback (most recent call last):
      ...
    ValueError: the name 'step' occurs twice in an object
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        values = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(first_line(error)) from None
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the name {twice!r:.100} occurs twice in an object")
    return found


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name without a message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
