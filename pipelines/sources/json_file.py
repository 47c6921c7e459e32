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
      RowError: it is no JSON.

    >>> load(b'{"videos": []}')
    {'videos': []}
    """
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise RowError("read", "file_damaged", f"no JSON: {why:.200}") from None


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
