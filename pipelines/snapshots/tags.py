"""Tags of versions (protos/tags.py): read, moved, deleted and resolved.

Each movement is a new file that only one writer can create. So a writer that is not aware of
another's movement fails or decides again, on a disk and in a bucket.
"""

import datetime
import os
from typing import NamedTuple

from pipelines.snapshots import snapshot, verify
from pipelines.storage import storage
from protos import contract, tags
from protos.v1.manifest_pb2 import TagMove


class TagError(snapshot.SnapshotError):
    """A tag that does not exist, is elsewhere, or whose version is not the tagged one."""


class Position(NamedTuple):
    """The place of a tag."""

    number: int  # number of its last movement, 0 if there is none
    move: TagMove | None  # None if the tag does not exist or was deleted


def resolve(path: str) -> str:
    """Return the folder of a version, from CORPUS@TAG or from the folder itself.

    A folder whose own name has an "@" goes first.

    Raises:
      TagError: the tag does not exist, or its version is another one than was tagged.
    """
    found = tags.reference(path)
    if found is None or _is_folder(path):
        return path
    corpus, tag = found
    move = position(corpus, tag).move
    if move is None:
        raise _unknown(corpus, tag)
    folder = f"{corpus.rstrip('/')}/{move.folder}"
    try:
        sha256 = snapshot.manifest_sha256(folder)
    except OSError as error:
        raise TagError(
            f"{path!r} is the version {folder!r}, whose manifest cannot be read "
            f"({error.strerror}): restore it, or move the tag"
        ) from None
    if sha256 != move.manifest_sha256:
        raise TagError(
            f"{path!r} is the version {folder!r}, but its manifest has the sha256 {sha256[:12]}…, "
            f"not {move.manifest_sha256[:12]}… as when it was tagged: restore it, or move the tag"
        )
    return folder


def position(corpus: str, tag: str) -> Position:
    """Return where a tag is.

    Raises:
      TagError: its last movement is damaged.
    """
    number = tags.numbers(_names(corpus)).get(tag, 0)
    move = _read(corpus, tag, number) if number else None
    return Position(number, move if move and move.folder else None)


def all_positions(corpus: str) -> dict[str, Position]:
    """Return where each tag is, by its sorted name; deleted tags have no movement.

    Raises:
      TagError: a last movement is damaged.
    """
    found = {}
    for tag, number in sorted(tags.numbers(_names(corpus)).items()):
        move = _read(corpus, tag, number)
        found[tag] = Position(number, move if move.folder else None)
    return found


def history(corpus: str, tag: str) -> list[TagMove]:
    """Return all movements of a tag, the first one first.

    Raises:
      TagError: the tag never existed, or a movement is damaged.
    """
    last = position(corpus, tag).number
    if not last:
        raise _unknown(corpus, tag)
    return [_read(corpus, tag, number) for number in range(1, last + 1)]


def put(folder: str, tag: str, *, move: bool) -> str:
    """Set a tag to a version, and return a phrase on its former place, empty if it had none.

    Args:
      folder: the version's folder.
      tag: the tag.
      move: move the tag if it is at another version.

    Raises:
      TagError: the tag is at another version and `move` is false, or another writer moved it.
      SnapshotError: the folder is no complete snapshot.
    """
    made = _new_move(folder)
    corpus, _ = storage.folder_and_name(folder)
    number, now = position(corpus, tag)
    if now and _same(now, made):
        return ""
    if now and not move:
        raise TagError(
            f"the tag {tag!r} is at {now.folder!r} (version {now.data_version}): give --move to "
            "move it"
        )
    if not _write(corpus, tag, number + 1, made):
        raise _moved(corpus, tag)
    return f"from {now.folder!r} " if now else ""


def delete(corpus: str, tag: str) -> None:
    """Delete a tag; its history stays.

    Raises:
      TagError: the tag does not exist, or another writer moved it.
    """
    number, now = position(corpus, tag)
    if now is None:
        raise _unknown(corpus, tag)
    gone = TagMove(schema_version=contract.INCREMENTS_VERSION, moved_at=_now())
    if not _write(corpus, tag, number + 1, gone):
        raise _moved(corpus, tag)


def check(out: str, tag: str, base: str | None) -> None:
    """Check, before a new version is made, that a tag may then be moved to it.

    Args:
      out: the folder of the new version.
      tag: the tag.
      base: the earlier version from which it is made. Only from there may the tag be moved, so that
        nothing is lost that another writer has added meanwhile. None: from anywhere.

    Raises:
      TagError: the tag is at another version.
    """
    corpus, name = storage.folder_and_name(out)
    if not tags.is_folder(name):
        raise TagError(
            f"--out {out!r}: a version's folder cannot be named {name!r}: choose another"
        )
    _check(position(corpus, tag).move, tag, out, base)


def advance(out: str, tag: str, base: str | None) -> None:
    """Move a tag to a new version; the arguments are those of `check`.

    Raises:
      TagError: another writer moved the tag to another version than `base` meanwhile.
    """
    made = _new_move(out)
    corpus, _ = storage.folder_and_name(out)
    while True:
        number, now = position(corpus, tag)
        if now and _same(now, made):
            return
        _check(now, tag, out, base)
        if _write(corpus, tag, number + 1, made):
            return


def _check(now: TagMove | None, tag: str, out: str, base: str | None) -> None:
    if now is None or base is None:
        return
    corpus, name = storage.folder_and_name(out)
    if storage.folder_and_name(base) != (corpus, now.folder) and now.folder != name:
        raise TagError(
            f"the tag {tag!r} is at {now.folder!r} (version {now.data_version}), not at {base!r}, "
            f"from which {name!r} is made: start from {now.folder!r}, or choose another tag"
        )


def _new_move(folder: str) -> TagMove:
    manifest = verify.read_manifest(folder)
    _, name = storage.folder_and_name(folder)
    if not tags.is_folder(name):
        raise TagError(f"{folder!r}: a version's folder cannot be named {name!r}: rename it")
    return TagMove(
        schema_version=contract.INCREMENTS_VERSION,
        folder=name,
        manifest_sha256=snapshot.manifest_sha256(folder),
        data_version=manifest.data_version,
        moved_at=_now(),
    )


def _same(one: TagMove, other: TagMove) -> bool:
    return (one.folder, one.manifest_sha256) == (other.folder, other.manifest_sha256)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _write(corpus: str, tag: str, number: int, move: TagMove) -> bool:
    """Write a tag's next movement; return False if another writer was faster."""
    folder = os.path.join(corpus, tags.FOLDER)
    storage.make_folder(folder)
    try:
        storage.create(os.path.join(folder, tags.file_name(tag, number)), snapshot.to_json(move))
    except FileExistsError:
        return False
    return True


def _read(corpus: str, tag: str, number: int) -> TagMove:
    path = os.path.join(corpus, tags.FOLDER, tags.file_name(tag, number))
    try:
        return tags.parse(storage.read(path))
    except contract.ContractError as error:
        raise TagError(f"{path} is damaged: {error}: restore it, or remove it") from None


def _names(corpus: str) -> list[str]:
    try:
        return storage.names(os.path.join(corpus, tags.FOLDER))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(path: str) -> bool:
    try:
        return bool(storage.names(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _unknown(corpus: str, tag: str) -> TagError:
    there = [name for name, place in all_positions(corpus).items() if place.move]
    listed = ", ".join(map(repr, there[:_NAMED])) or "none"
    return TagError(f"{corpus!r} has no tag {tag!r}: its tags are {listed}: name one of them")


def _moved(corpus: str, tag: str) -> TagError:
    now = position(corpus, tag).move
    where = f"to {now.folder!r} (version {now.data_version})" if now else "away"
    return TagError(f"another command has moved the tag {tag!r} {where} meanwhile: check its place")


_NAMED = 20  # maximum number of listed tags
