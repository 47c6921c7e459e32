"""The files of the page, read once, and served by name."""

import functools
import hashlib
import importlib.resources
import string
from typing import NamedTuple

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_WRONG = '<p class="wrong" role="alert">This is not the server’s token.</p>'


class Asset(NamedTuple):
    """A file of the page."""

    data: bytes
    media_type: str
    etag: str


@functools.cache
def files() -> dict[str, Asset]:
    """Return the files of the page by name."""
    found = {}
    for file in importlib.resources.files("trainer.server").joinpath("page").iterdir():
        kind = file.name.rpartition(".")[2]
        if kind in _TYPES:
            data = file.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            found[file.name] = Asset(data, _TYPES[kind], etag)
    return found


def sign_in(failed: bool) -> str:
    """Return the page that asks for the token."""
    page = string.Template(files()["sign_in.html"].data.decode())
    return page.substitute(wrong=_WRONG if failed else "")
