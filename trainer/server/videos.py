"""Video files of a folder or bucket, found by id, and read by range."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from protos.video_id import EXTENSIONS, split_extension, video_key
from trainer.data.folder import Part, open_folder
from trainer.errors import UserError

_CHUNK = 1 << 20  # bytes read at once
_TYPES = {"mp4": "video/mp4", "m4v": "video/mp4", "webm": "video/webm", "ogv": "video/ogg"}
_OTHER = "video/x-unknown"  # the browser tries
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class VideosError(UserError):
    """A folder of videos that cannot be listed, or that has none."""


class RangeError(UserError):
    """A range outside a file."""


class Video(NamedTuple):
    """A video file."""

    name: str  # in its folder
    size: int  # bytes
    media_type: str


class Videos:
    """The video files directly in a folder, as listed once. Ids never become paths."""

    def __init__(self, path: str) -> None:
        """List a folder on a disk, gs://bucket/folder or s3://bucket/folder.

        Raises:
          VideosError: the folder cannot be listed, or has no video file.
        """
        self._folder = open_folder(path)
        try:
            sizes = self._folder.sizes()
        except OSError as error:
            raise VideosError(f"{path} cannot be listed: {error.strerror}") from error
        self._videos: dict[str, Video] = {}
        order = {extension: place for place, extension in enumerate(EXTENSIONS)}
        for name in sorted(sizes, key=lambda name: (order.get(_extension(name), 0), name)):
            if extension := _extension(name):
                video = Video(name, sizes[name], _TYPES.get(extension, _OTHER))
                self._videos.setdefault(video_key(name), video)
        if not self._videos:
            raise VideosError(f"{path} has no video: no file named *.{', *.'.join(EXTENSIONS)}")

    def find(self, video_id: str) -> Video | None:
        """Return the file of a video's id; None if the folder lacks it."""
        return self._videos.get(video_key(video_id))

    def read(self, video: Video, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes [start, end) of a video.

        Raises:
          OSError: the file cannot be read, or is shorter than when it was listed.
        """
        for offset in range(start, end, _CHUNK):
            length = min(_CHUNK, end - offset)
            (data,) = self._folder.read_parts([Part(video.name, offset, length)])
            if len(data) != length:
                raise OSError(f"{os.path.join(self._folder.path, video.name)} became shorter")
            yield data


def _extension(name: str) -> str:
    return split_extension(name)[1].lower()


def span_of(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the bytes [start, end) of a Range header; None if it asks for the whole file.

    Several ranges and other units are ignored, as HTTP permits.

    Raises:
      RangeError: the range is outside the file.

    >>> span_of("bytes=10-", 100), span_of("bytes=-10", 100), span_of("bytes=0-9", 100)
    ((10, 100), (90, 100), (0, 10))
    >>> span_of(None, 100) is None
    True
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise RangeError(f"range {header} is outside of the file's {size} bytes")
    return start, end
