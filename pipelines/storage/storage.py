"""Files, on a disk or in a bucket (gs://…): the one place that knows the difference.

A file gets its name only when all of it is there. On a disk: write beside it, fsync, rename. In a
bucket: write a local file, then one upload, before whose end nothing is seen.

Every function raises OSError, with the file's name and a reason that can be told.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pipelines.storage import bucket

UNFINISHED = ".unfinished"  # the end of names of files that are being written

_BLOCK_BYTES = 1 << 20
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EISDIR}


def in_bucket(path: str) -> bool:
    """Whether a path is of a bucket.

    >>> in_bucket("gs://videos/train"), in_bucket("videos/train")
    (True, False)
    """
    return path.startswith(bucket.SCHEME)


def absolute(path: str) -> str:
    """A path that means the same in every folder and process.

    >>> absolute("gs://videos/train/")
    'gs://videos/train'
    """
    return path.rstrip("/") if in_bucket(path) else os.path.abspath(path)


def name(path: str) -> str:
    """A file's name without its folder.

    >>> name("annotations/train.json")
    'train.json'
    """
    return path.rstrip("/").rpartition("/")[2]


def folder_and_name(path: str) -> tuple[str, str]:
    """A file's folder and its name there.

    >>> folder_and_name("gs://cards/mine/card.html")
    ('gs://cards/mine', 'card.html')
    """
    folder, _, last = absolute(path).rpartition("/")
    return folder or "/", last


def names(folder: str) -> list[str]:
    """The names of all in a folder, sorted; of a bucket's, which has no empty ones, perhaps none.

    Objects in deeper folders of a bucket do not count.
    """
    return bucket.names(folder) if in_bucket(folder) else sorted(os.listdir(folder))


def listing(folder: str, beginning: str = "") -> Iterator[tuple[str, int]]:
    """The objects of a bucket's folder whose paths there begin so, however deep: path, bytes."""
    return bucket.listing(folder, beginning)


def is_empty(folder: str) -> bool:
    """Whether there is nothing in a folder."""
    if in_bucket(folder):
        return not bucket.names(folder, most=1)
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def expand(path: str) -> list[str]:
    """A file's own path; for a folder, the paths of the files directly in it, sorted."""
    if in_bucket(path):
        folder = path.rstrip("/")
        # Of what is nothing, its own path, too: who opens it is told.
        return [f"{folder}/{name}" for name in bucket.names(folder)] or [path]
    if not os.path.isdir(path):
        return [path]
    with os.scandir(path) as entries:
        return sorted(entry.path for entry in entries if entry.is_file())


def make_folder(path: str) -> None:
    """Makes a folder, unless it is there; a bucket's needs no making."""
    if not in_bucket(path):
        os.makedirs(path, exist_ok=True)


def exists(path: str) -> bool:
    """Whether there is a file, or a link to none."""
    if not in_bucket(path):
        return os.path.lexists(path)
    try:
        bucket.stat(path)
    except FileNotFoundError:
        return False
    return True


def size(path: str) -> int:
    """A file's bytes."""
    return bucket.stat(path).bytes if in_bucket(path) else os.stat(path).st_size


def open_to_read(path: str) -> BinaryIO:
    """Opens a file to read."""
    return bucket.open_to_read(path) if in_bucket(path) else open(path, "rb")


def read(path: str) -> bytes:
    """A whole file."""
    if in_bucket(path):
        return bucket.read(path)
    with open(path, "rb") as file:
        return file.read()


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Parts of a file, bytes [start, end) each; shorter where the file ends within them."""
    if in_bucket(path):
        return bucket.read_ranges(path, ranges)
    parts = []
    with open(path, "rb") as file:
        for start, end in ranges:
            file.seek(start)
            parts.append(file.read(end - start))
    return parts


def sha256(path: str) -> str:
    """A file's sha256, hex, read in blocks."""
    digest = hashlib.sha256()
    with open_to_read(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fetch(path: str, local: str, most_bytes: int) -> int:
    """Copies a file to a local one, unless it is larger than `most_bytes`.

    Returns:
      Its size.
    """
    with open_to_read(path) as file:
        found = file.seek(0, os.SEEK_END)
        file.seek(0)
        if found <= most_bytes:
            with open(local, "xb") as copy:
                shutil.copyfileobj(file, copy, _BLOCK_BYTES)
    return found


def duplicate(old: str, new: str) -> bool:
    """Gives a file a second name, or a copy of its own, without reading it here.

    Returns:
      Whether that was possible.
    """
    if in_bucket(old) and in_bucket(new):
        bucket.copy(old, new)
        return True
    if in_bucket(old) or in_bucket(new):
        return False
    try:
        os.link(old, new)
    except OSError:
        return False
    return True


def write_new(path: str, data: bytes) -> None:
    """Writes a file that must not be there yet; the same bytes a second time do no harm.

    In a bucket, the first of several writers wins; on a disk a lock must keep others away.

    Raises:
      FileExistsError: there is another one.
    """
    if not in_bucket(path):
        with NewFile(path) as file:
            file.write(data)
        return
    try:
        bucket.write(path, data, generation="0")
    except FileExistsError:
        if bucket.read(path) != data:
            raise


def remove(path: str) -> None:
    """Removes a file."""
    bucket.delete(path) if in_bucket(path) else os.remove(path)


class NewFile:
    """A file that gets its name at the end of its `with` block, or vanishes on an error.

    A file of that name is replaced.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # Two runs of one work item must not write into one file.
        unfinished = f"{name(path)}.{uuid.uuid4().hex}{UNFINISHED}"
        folder = tempfile.gettempdir() if in_bucket(path) else os.path.dirname(path)
        self._temporary = os.path.join(folder, unfinished)
        self._digest, self.bytes = hashlib.sha256(), 0

    def __enter__(self):
        self._file = open(self._temporary, "xb")
        return self

    def write(self, data: bytes) -> None:
        """Writes further bytes."""
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def tell(self) -> int:
        """The bytes so far."""
        return self.bytes

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self._file.flush()
                if not in_bucket(self._path):
                    _sync(self._file.fileno())
            self._file.close()
            if kind is None and in_bucket(self._path):
                bucket.upload(self._temporary, self._path)
            elif kind is None:
                os.replace(self._temporary, self._path)
                _sync_folder(os.path.dirname(self._path))
        finally:
            with contextlib.suppress(OSError):  # what cannot be written was raised above
                self._file.close()
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._temporary)

    @property
    def sha256(self) -> str:
        """Of the bytes so far, hex."""
        return self._digest.hexdigest()


def _sync_folder(folder: str) -> None:
    try:
        descriptor = os.open(folder or ".", os.O_RDONLY)
    except PermissionError:  # of a folder that may be written to and not read
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Write to the device, where the file system can: CIFS and some of FUSE sync no folders."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
