"""Tags: names such as "latest" for versions of a data set, in a folder beside the versions.

CORPUS/tags/latest.000001.json is the first movement of the tag "latest", a TagMove. No file is
replaced or removed, so a tag keeps its history. A writer creates the file with the next number,
which only one of several writers can do. CORPUS@latest stands for the tag's version.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable

from protos import contract
from protos.v1.manifest_pb2 import TagMove

FOLDER = "tags"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(rf"({_NAME.pattern})\.([0-9]{{6}})\.json")
_SHA256 = re.compile("[0-9a-f]{64}")


def is_name(text: str) -> bool:
    """Return whether a text is a valid name of a tag.

    >>> is_name("latest"), is_name("../x"), is_name(""), is_name("-x")
    (True, False, False, False)
    """
    return _NAME.fullmatch(text) is not None


def reference(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return the folder of versions and the tag of CORPUS@TAG, or None for any other path.

    >>> reference("gs://lab/shapes@latest"), reference("a@b/c"), reference("a@../b"), reference("a")
    (('gs://lab/shapes', 'latest'), None, None, None)
    """
    corpus, at, tag = os.fspath(path).rstrip("/").rpartition("@")
    return (corpus, tag) if at and corpus.rstrip("/") and is_name(tag) else None


def file_name(tag: str, number: int) -> str:
    """Return the name of the file of a tag's movement, numbered from 1.

    >>> file_name("latest", 12)
    'latest.000012.json'
    """
    return f"{tag}.{number:06d}.json"


def numbers(names: Iterable[str]) -> dict[str, int]:
    """Return the number of each tag's last movement, from the names in the folder of tags.

    >>> numbers(["latest.000001.json", "latest.000002.json", "v1.0.000001.json", "build.lock"])
    {'latest': 2, 'v1.0': 1}
    """
    last: dict[str, int] = defaultdict(int)
    for name in names:
        if match := _FILE.fullmatch(name):
            last[match[1]] = max(last[match[1]], int(match[2]))
    return dict(last)


def parse(data: bytes) -> TagMove:
    """Parse a tag's movement.

    Raises:
      ContractError: it is damaged or of another major version, or its folder is no plain name.
    """
    move = contract.parse_json(data, TagMove)
    contract.check_readable(move.schema_version)
    if move.folder and not is_folder(move.folder):
        raise contract.ContractError(
            f"it names {move.folder!r:.100}, which is not a folder beside {FOLDER}"
        )
    if move.folder and not _SHA256.fullmatch(move.manifest_sha256):
        raise contract.ContractError(f"{move.manifest_sha256!r:.100} is not a sha256")
    return move


def is_folder(name: str) -> bool:
    r"""Return whether a text can be the name of a version's folder.

    >>> [is_folder(name) for name in ("1.0.0", "..", "a/b", "tags", "a\0b", "")]
    [True, False, False, False, False, False]
    """
    return name not in {"", ".", "..", FOLDER} and not {"/", "\0"} & {*name}
