"""File operations on a disk or in a bucket (gs://… or s3://…), behind one interface.

A file gets its name only when it is complete. On a disk, it is written to a temporary file beside
it, synced and renamed. In a bucket, it is written to a local file and then uploaded. The object is
invisible until the upload ends.

Every function raises OSError with the file's name and a reason fit for the user.
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

from pipelines.storage import bucket, stores

UNFINISHED = ".unfinished"  # suffix of the names of files that are being written

_BLOCK_BYTES = 1 << 20
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EISDIR}


def in_bucket(path: str) -> bool:
    """Return whether a path is in a bucket.

    >>> [in_bucket(path) for path in ("gs://videos/a", "s3://videos/a", "videos/a")]
    [True, True, False]
    """
    return path.startswith(bucket.SCHEMES)


def absolute(path: str) -> str:
    """Return the absolute path, without a trailing slash.

    >>> absolute("gs://videos/train/")
    'gs://videos/train'
    """
    return path.rstrip("/") if in_bucket(path) else os.path.abspath(path)


def name(path: str) -> str:
    """Return the last component of a path.

    >>> name("annotations/train.json")
    'train.json'
    """
    return path.rstrip("/").rpartition("/")[2]


def folder_and_name(path: str) -> tuple[str, str]:
    """Split a path into its absolute folder and its name in that folder.

    >>> folder_and_name("gs://cards/mine/card.html")
    ('gs://cards/mine', 'card.html')
    """
    folder, _, last = absolute(path).rpartition("/")
    return folder or "/", last


def names(folder: str) -> list[str]:
    """Return the sorted names of the entries of a folder.

    In a bucket, these are the objects directly in the folder. Buckets have no empty folders, so the
    result for a missing folder is an empty list.
    """
    return bucket.names(folder) if in_bucket(folder) else sorted(os.listdir(folder))


def listing(folder: str, beginning: str = "") -> Iterator[tuple[str, int]]:
    """Yield (path, bytes) of all objects below a bucket's folder with the prefix `beginning`."""
    return bucket.listing(folder, beginning)


def is_empty(folder: str) -> bool:
    """Return whether a folder is empty."""
    if in_bucket(folder):
        return not bucket.names(folder, most=1)
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def expand(path: str) -> tuple[list[str], list[str]]:
    """Return the files that a path stands for, and the names that are left out of a folder.

    A file stands for itself, and a folder for the files directly in it, sorted. Left out are
    hidden files, editors' backups and whatever is no file, such as subfolders on a disk.
    """
    if in_bucket(path):
        folder = path.rstrip("/")
        all_names = files = bucket.names(folder)
        if not all_names:
            return [path], []  # Opening a missing path reports the error.
    elif not os.path.isdir(path):
        return [path], []
    else:
        folder = path
        with os.scandir(path) as entries:
            by_name = {entry.name: entry.is_file() for entry in entries}
        all_names = sorted(by_name)
        files = [name for name in all_names if by_name[name]]
    kept = [name for name in files if not _is_hidden_or_backup(name)]
    left_out = sorted({*all_names} - {*kept})
    return [os.path.join(folder, name) for name in kept], left_out


def _is_hidden_or_backup(name: str) -> bool:
    """Return whether a file is hidden or, by its name, an editor's backup.

    >>> [_is_hidden_or_backup(name) for name in (".a.csv", "a.csv~", "#a.csv#", "a.csv")]
    [True, True, True, False]
    """
    backup = name.endswith(("~", ".bak", ".orig")) or (name[:1] == name[-1:] == "#")
    return name.startswith(".") or backup


def make_folder(path: str) -> None:
    """Create a folder unless it exists. This is a no-op in a bucket."""
    if not in_bucket(path):
        os.makedirs(path, exist_ok=True)


def exists(path: str) -> bool:
    """Return whether a file or a link exists, even if the link is broken."""
    if not in_bucket(path):
        return os.path.lexists(path)
    try:
        bucket.stat(path)
    except FileNotFoundError:
        return False
    return True


def size(path: str) -> int:
    """Return a file's size in bytes."""
    return bucket.stat(path).bytes if in_bucket(path) else os.stat(path).st_size


def open_to_read(path: str) -> BinaryIO:
    """Open a file for reading in binary mode."""
    return bucket.open_to_read(path) if in_bucket(path) else open(path, "rb")


def read(path: str) -> bytes:
    """Return the content of a file."""
    if in_bucket(path):
        return bucket.read(path)
    with open(path, "rb") as file:
        return file.read()


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the contents of byte ranges [start, end) of a file, truncated at its end."""
    if in_bucket(path):
        return bucket.read_ranges(path, ranges)
    parts = []
    with open(path, "rb") as file:
        for start, end in ranges:
            file.seek(start)
            parts.append(file.read(end - start))
    return parts


def sha256(path: str) -> str:
    """Return the hex sha256 of a file, which is read in blocks."""
    digest = hashlib.sha256()
    with open_to_read(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fetch(path: str, local: str, most_bytes: int) -> int:
    """Copy a file to the new local file `local`, unless it is larger than `most_bytes`.

    Returns:
      The size of the file in bytes.
    """
    with open_to_read(path) as file:
        found = file.seek(0, os.SEEK_END)
        file.seek(0)
        if found <= most_bytes:
            with open(local, "xb") as copy:
                shutil.copyfileobj(file, copy, _BLOCK_BYTES)
    return found


def duplicate(old: str, new: str) -> bool:
    """Hard-link a file on a disk or copy it within a bucket store, without reading it here.

    Returns:
      Whether that was possible.
    """
    if in_bucket(old) or in_bucket(new):
        possible = in_bucket(old) and in_bucket(new) and bucket.same_store(old, new)
        if possible:
            bucket.copy(old, new)
        return possible
    try:
        os.link(os.path.realpath(old), new)  # a link to a symbolic link could dangle
    except FileExistsError:
        return os.path.exists(new) and os.path.samefile(old, new)
    except OSError:
        return False
    return True


def write_new(path: str, data: bytes) -> None:
    """Write a file that must not exist yet, except with the same bytes.

    In a bucket, the first of several writers wins. On a disk, an existing file is replaced, so the
    caller must hold a lock.

    Raises:
      FileExistsError: the bucket has an object of that name with other bytes.
    """
    if in_bucket(path):
        bucket.write(path, data, stores.NEW)
    else:
        with NewFile(path) as file:
            file.write(data)


def create(path: str, data: bytes) -> None:
    """Write a new file atomically. The first of several writers wins, without a lock.

    Raises:
      FileExistsError: the file exists; in a bucket, with other bytes.
    """
    if in_bucket(path):
        bucket.write(path, data, stores.NEW)
        return
    temporary = f"{path}.{uuid.uuid4().hex}{UNFINISHED}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            _sync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # The file system has no hard links.
            with open(path, "xb") as file:
                file.write(data)
        _sync_folder(os.path.dirname(path))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def remove(path: str) -> None:
    """Remove a file."""
    bucket.delete(path) if in_bucket(path) else os.remove(path)


class NewFile:
    """A file that gets its name at the end of its `with` block and is deleted on an error.

    An existing file of that name is replaced.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # Two attempts of one work item must not write into the same file.
        unfinished = f"{name(path)}.{uuid.uuid4().hex}{UNFINISHED}"
        folder = tempfile.gettempdir() if in_bucket(path) else os.path.dirname(path)
        self._temporary = os.path.join(folder, unfinished)
        self._digest, self.bytes = hashlib.sha256(), 0

    def __enter__(self):
        self._file = open(self._temporary, "xb")
        return self

    def write(self, data: bytes) -> None:
        """Append bytes to the file."""
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self.bytes

    @property
    def closed(self) -> bool:
        """True once the file accepts no more bytes; PyArrow asks before it writes."""
        return self._file.closed

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
            with contextlib.suppress(OSError):  # Write errors were already raised above.
                self._file.close()
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._temporary)

    @property
    def sha256(self) -> str:
        """The hex sha256 of the bytes written so far."""
        return self._digest.hexdigest()


def _sync_folder(folder: str) -> None:
    try:
        descriptor = os.open(folder or ".", os.O_RDONLY)
    except PermissionError:  # A folder may be writable but not readable.
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Sync to the device if the file system can: CIFS and some FUSE ones cannot sync folders."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
