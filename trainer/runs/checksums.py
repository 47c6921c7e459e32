"""Checksums of a checkpoint's files, written with it and compared before it is used.

Neither a file system nor TensorStore notices a flipped bit in an array. So each checkpoint has
checksums.json beside its parts:

  {"algorithm": "crc32c", "files": {"params/manifest.ocdbt": [bytes, "CRC-32C in hexadecimal"]}}

A bucket keeps the CRC-32C of each object, so the comparison downloads nothing there.
"""

import errno
import json
import os
import pathlib
import shutil
from collections.abc import Collection

import google_crc32c

from trainer.data.folder import in_bucket, move_folder, object_checksums, read_file, write_file
from trainer.runs.run_path import RunPath

NAME = "checksums.json"

_CHUNK_BYTES = 1 << 22

Checksums = dict[str, tuple[int, str]]
"""Size and CRC-32C of each file, by its path in the checkpoint."""


def write(folder: RunPath) -> None:
    """Write the checksums of all files in a checkpoint's parts.

    Raises:
      OSError: a file cannot be read, or the checksums cannot be written.
    """
    parts = {path.name for path in folder.iterdir() if path.is_dir()}
    write_file(folder / NAME, _to_json(_compute(folder, parts)))


def exist(folder: RunPath) -> bool:
    """Return whether a checkpoint has checksums. Earlier releases wrote none."""
    return (folder / NAME).exists()


def find_damage(folder: RunPath, parts: Collection[str] | None = None) -> str | None:
    """Compare a checkpoint's files with its checksums.

    Args:
      folder: the checkpoint.
      parts: the parts to compare, such as "params"; None compares all.

    Returns:
      The first difference, with the name of its file; None if there is no difference.

    Raises:
      OSError: a file cannot be read for a reason other than damage.
    """
    try:
        text = read_file(folder / NAME)
        saved: Checksums = {
            name: (int(size), str(crc)) for name, (size, crc) in json.loads(text)["files"].items()
        }
        if _to_json(saved) != text:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return f"{NAME} was edited or damaged"
    wanted = {name for name in saved if parts is None or name.partition("/")[0] in parts}
    try:
        found = _compute(folder, {name.partition("/")[0] for name in wanted}, wanted)
    except OSError as error:
        if error.errno != errno.EIO or in_bucket(folder):
            raise
        return f"{error.filename} cannot be read: {error.strerror}"
    for name in sorted(wanted):
        if name not in found:
            return f"{name} is missing"
        (size, crc), (size_now, crc_now) = saved[name], found[name]
        if size_now != size:
            return f"{name} has {size_now:,} bytes instead of {size:,}"
        if crc_now != crc:
            return f"{name} has CRC-32C {crc_now} instead of {crc}"
    return None


def set_aside(folder: RunPath) -> RunPath:
    """Rename a damaged checkpoint, so that its step can be saved again.

    Returns:
      The new path, STEP.damaged or STEP.damaged-2 and so on.

    Raises:
      OSError: it cannot be renamed.
    """
    number, aside = 1, folder.with_name(f"{folder.name}.damaged")
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.damaged-{number}")
    if in_bucket(folder):
        move_folder(os.fspath(folder), os.fspath(aside))
    else:
        shutil.move(folder, aside)
    return aside


def _compute(
    folder: RunPath, parts: Collection[str], wanted: Collection[str] | None = None
) -> Checksums:
    if in_bucket(folder):
        found = object_checksums(os.fspath(folder))
        return {name: value for name, value in found.items() if name.partition("/")[0] in parts}
    root = pathlib.Path(os.fspath(folder))
    if wanted is None:
        files = [path for part in parts for path in (root / part).rglob("*") if path.is_file()]
    else:
        files = [root / name for name in sorted(wanted)]
    computed = {}
    for path in files:
        try:
            computed[path.relative_to(root).as_posix()] = _of_file(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return computed


def _to_json(checksums: Checksums) -> bytes:
    files = {name: list(values) for name, values in sorted(checksums.items())}
    return json.dumps({"algorithm": "crc32c", "files": files}, indent=0).encode()


def _of_file(path: pathlib.Path) -> tuple[int, str]:
    size = crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            crc = google_crc32c.extend(crc, chunk)
    return size, f"{crc:08x}"
