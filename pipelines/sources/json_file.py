"""JSON annotation files that are small enough to be loaded at once."""

from pipelines.sources import json_text
from pipelines.sources.clip_request import AnnotationError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_json(data: bytes) -> bool:
    r"""Return whether a text begins like a JSON object or list, as no other format does.

    >>> is_json(b' {"videos": []}'), is_json(b"video7010\n")
    (True, False)
    """
    return data.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] in (b"{", b"[")


def load(data: bytes, name: str) -> object:
    """Return the file's value, with invalid UTF-8 as surrogates, which `is_text` detects.

    Raises:
      AnnotationError: the file is not JSON, or an object repeats a name, which would lose a value.

    >>> load(b'{"videos": []}', "a.json")
    {'videos': []}
    """
    text = data.removeprefix(_BYTE_ORDER_MARK).decode(errors="surrogateescape")
    try:
        return json_text.loads(text)
    except ValueError as error:  # RowError is a subclass.
        why = str(error).partition("\n")[0]
        raise AnnotationError(
            f"{name} is not valid JSON: {why:.200}: repair it or download it again"
        ) from None


def objects(value: object, field: str, name: str) -> list[dict]:
    """Return the list of objects in the field of an object.

    Raises:
      AnnotationError: the value has no such list.

    >>> objects({"videos": [{"video_id": "video0"}]}, "videos", "a.json")
    [{'video_id': 'video0'}]
    """
    found = value.get(field) if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise AnnotationError(
            f"{name} has no field {field!r} with a list of objects: check that it is the right file"
        )
    return found
