"""Annotation files that are JSON as a whole and small enough to be read whole."""

import json

from pipelines.clip_request import RowError


def is_json(data: bytes) -> bool:
    r"""Whether a file's text begins as a JSON object or list does, in which no other form does.

    >>> is_json(b' {"videos": []}'), is_json(b"video7010\n")
    (True, False)
    """
    return data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def load(data: bytes) -> object:
    """The file's value.

    Raises:
      RowError: it is no JSON, or an object has a name twice, of which one would get lost.

    >>> load(b'{"videos": []}')
    {'videos': []}
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise RowError("read", "file_damaged", f"no such JSON as is read: {why:.200}") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"an object has the name {twice!r:.100} twice")
    return found


def objects(value: object, name: str) -> list[dict]:
    """The list of objects that an object has by a name.

    Raises:
      RowError: it has none.

    >>> objects({"videos": [{"video_id": "video0"}]}, "videos")
    [{'video_id': 'video0'}]
    """
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RowError("read", "row_columns", f"no list of objects {name!r}")
    return found
