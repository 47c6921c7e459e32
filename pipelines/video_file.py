"""A video's file: a regular one, in the folder of the videos and never outside it."""

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

_END_BYTES = 1 << 16


class Video(NamedTuple):
    """A video file that is there."""

    path: str
    bytes: int


class Failure(NamedTuple):
    """Why there are none: a reason code of clip_request.REASONS and a message."""

    reason: str
    message: str


def at(root: str, path: str) -> Video | Failure:
    """The file at `path` in the folder `root`; a link is followed, but not out of the folder."""
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
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
        return Failure("video_not_a_file", f"{name} is not a regular file")
    if not status.st_size:
        return Failure("video_empty", f"{name} has no bytes")
    return Video(path, status.st_size)


def identity(video: Video) -> str:
    """What tells a file from another without reading all of it: its size, beginning and end.

    A file that was downloaded anew or encoded otherwise differs in these. One whose middle alone
    was edited does not; a modification time would show that, but also every copy.
    """
    digest = hashlib.sha256(str(video.bytes).encode())
    try:
        with open(video.path, "rb") as file:
            digest.update(file.read(_END_BYTES))
            file.seek(max(0, video.bytes - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    except OSError as error:
        return error.strerror or "unreadable"  # which decoding will tell
    return digest.hexdigest()


def sha256(video: Video) -> str | Failure:
    """The file's sha256, hex."""
    try:
        with open(video.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Failure("video_unreadable", f"{Path(video.path).name}: {error.strerror}")
