"""Reader of tags: CORPUS@latest stands for a version of a data set (protos/tags.py)."""

import os
from typing import NamedTuple

from protos import contract, tags
from trainer.data.folder import open_folder
from trainer.errors import UserError


class TagError(UserError, RuntimeError):
    """A tag that does not exist or is damaged."""


class Version(NamedTuple):
    """The version of a data set that a path stands for."""

    folder: str
    manifest_sha256: str | None  # of the tagged version; None if the path has no tag


def resolve(path: str | os.PathLike[str]) -> Version:
    """Return the version of CORPUS@TAG, or a folder as it is.

    A folder whose own name has an "@" goes first.

    Raises:
      TagError: the tag does not exist, or its file is damaged or cannot be read.

    >>> resolve("snapshots/1.0.0")
    Version(folder='snapshots/1.0.0', manifest_sha256=None)
    """
    found = tags.reference(path)
    if found is None or _is_folder(path):
        return Version(os.fspath(path), None)
    corpus, tag = found
    folder = open_folder(f"{corpus.rstrip('/')}/{tags.FOLDER}")
    try:
        numbers = tags.numbers(folder.sizes())
        if tag not in numbers:
            raise _unknown(corpus, tag, sorted(numbers))
        move = tags.parse(folder.read(tags.file_name(tag, numbers[tag])))
    except (FileNotFoundError, NotADirectoryError):
        raise _unknown(corpus, tag, []) from None
    except OSError as error:
        raise TagError(f"{folder.path} cannot be read: {error.strerror}") from error
    except contract.ContractError as error:
        raise TagError(f"the tag {tag!r} in {folder.path} is damaged: {error}") from None
    if not move.folder:
        raise TagError(f"the tag {tag!r} of {corpus} was deleted: give another, or a folder")
    return Version(f"{corpus.rstrip('/')}/{move.folder}", move.manifest_sha256)


def _is_folder(path: str | os.PathLike[str]) -> bool:
    try:
        return bool(open_folder(path).sizes())
    except OSError:
        return False


def _unknown(corpus: str, tag: str, known: list[str]) -> TagError:
    listed = ", ".join(known[:_NAMED]) or "none"
    return TagError(f"{corpus} has no tag {tag!r}: its tags are {listed}: give one, or a folder")


_NAMED = 20  # maximum number of listed tags
