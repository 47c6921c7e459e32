"""Access to a video's file, which must be a regular one inside the folder of the videos."""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipelines.storage import storage

_END_BYTES = 1 << 16


class Video(NamedTuple):
    """An existing video file."""

    path: str
    bytes: int


class Failure(NamedTuple):
    """The failure of a video or span: a reason code of sources/reject_reasons.py and a message."""

    reason: str
    message: str


def at(root: str, path: str, listed: Mapping[str, int] | None = None) -> Video | Failure:
    """Return the file at `path` in the folder `root`, following links only inside the folder.

    Args:
      root: the folder of the videos.
      path: path relative to `root`.
      listed: sizes of a bucket folder's objects in bytes, by their paths in the folder. None
        queries the bucket.

    Raises:
      OSError: `root` is in a bucket that cannot be used.
    """
    if storage.in_bucket(root):
        return _in_bucket(root, path, listed)
    name = os.path.basename(os.path.normpath(path))[:100]
    if not os.path.lexists(os.path.join(root, path)):
        return Failure("video_missing", f"no {name!r}")
    root, path = os.path.realpath(root), os.path.realpath(os.path.join(root, path))
    if os.path.commonpath([root, path]) != root:
        return Failure("video_outside_root", f"{name} leads out of the video folder")
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return Failure("video_missing", f"{name} is a link to nothing")
    except OSError as error:
        return Failure("video_unreadable", f"{name}: {error.strerror}")
    if not stat.S_ISREG(status.st_mode):  # Opening a pipe would block forever.
        return Failure("video_not_a_file", f"{name} is not a regular file")
    if not status.st_size:
        return Failure("video_empty", f"{name} has no bytes")
    return Video(path, status.st_size)


def _in_bucket(root: str, path: str, listed: Mapping[str, int] | None) -> Video | Failure:
    name = storage.name(path)[:100]
    root = root.rstrip("/") + "/"
    whole = path if storage.in_bucket(path) else root + path
    if not whole.startswith(root) or ".." in whole.split("/"):
        return Failure("video_outside_root", f"{name} leads out of the video folder")
    try:
        size = storage.size(whole) if listed is None else listed[whole.removeprefix(root)]
    except (FileNotFoundError, KeyError):
        return Failure("video_missing", f"no {name!r}")
    return Video(whole, size) if size else Failure("video_empty", f"{name} has no bytes")


def identity(video: Video) -> str:
    """Return a hash of a file's size, beginning and end, which identifies it without a full read.

    A file that was re-encoded or replaced by another download differs in these. A file with edits
    only in its middle does not. A modification time would detect such edits, but it also changes
    with every copy.
    """
    digest = hashlib.sha256(str(video.bytes).encode())
    first = (0, min(_END_BYTES, video.bytes))
    last = (max(0, video.bytes - _END_BYTES), video.bytes)
    try:
        for part in storage.read_ranges(video.path, [first, last]):
            digest.update(part)
    except OSError as error:
        return error.strerror or "unreadable"  # Decoding reports this error.
    return digest.hexdigest()


@contextlib.contextmanager
def fetched(video: Video, most_bytes: int) -> Iterator[Video | Failure]:
    """Yield the video as a local file; a bucket's is downloaded, and removed on exit.

    Args:
      video: the video file.
      most_bytes: maximum size of a download, bytes.

    Raises:
      OSError: the bucket cannot be used, or the disk is full.
    """
    if not storage.in_bucket(video.path):
        yield video
        return
    name = storage.name(video.path)
    with tempfile.TemporaryDirectory(prefix="svilm-") as folder:
        path = os.path.join(folder, name)
        try:
            size = storage.fetch(video.path, path, most_bytes)
        except FileNotFoundError:
            yield Failure("video_missing", f"no {name!r} any more")
            return
        if size > most_bytes:
            yield Failure("video_too_large", f"{size} bytes, and {most_bytes} may be fetched")
        else:
            yield Video(path, size)


def sha256(video: Video) -> str | Failure:
    """Return the file's SHA-256 in hexadecimal."""
    try:
        with open(video.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Failure("video_unreadable", f"{Path(video.path).name}: {error.strerror}")
