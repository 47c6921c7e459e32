"""Objects in the buckets of Google Cloud Storage (gs://…) and S3 (s3://…).

Nothing is cached in memory, and every error is an OSError.
"""

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from pipelines.errors import is_fault
from pipelines.storage.stores import STORES, Object, Store, store

SCHEMES = tuple(STORES)

# Larger objects are uploaded by the library, which retries failed parts.
_ONE_REQUEST_BYTES = 5 << 20
_BLOCK_BYTES = 8 << 20  # read-ahead of an open object
_PAGE = 1000  # maximum number of objects in one page of a listing


def stat(path: str) -> Object:
    """Return an object's size and generation."""
    with _as_os_errors(path):
        return _store(path).stat(*_split(path))


def names(folder: str, most: int | None = None) -> list[str]:
    """Return the sorted names of the objects directly in a folder.

    A folder without objects does not differ from a missing one: the result is empty.

    Args:
      folder: the folder.
      most: page size; stop after the first page with objects. None lists all objects.

    Raises:
      FileNotFoundError: the bucket does not exist.
    """
    found: list[str] = []
    for page in _pages(folder, "", most or _PAGE, flat=True):
        found += [name for name, _ in page if name]
        if most and found:
            break
    return sorted(found)


def listing(folder: str, beginning: str = "") -> Iterator[tuple[str, int]]:
    """Yield (path, bytes) of all objects below a folder, at any depth.

    Each request lists up to 1,000 objects.

    Args:
      folder: the folder.
      beginning: prefix of the paths, relative to the folder; empty for all.

    Raises:
      FileNotFoundError: the bucket does not exist.
    """
    for page in _pages(folder, beginning, _PAGE, flat=False):
        yield from page


def _pages(
    folder: str, beginning: str, most: int, *, flat: bool
) -> Iterator[list[tuple[str, int]]]:
    bucket, root = _split(folder.rstrip("/") + "/")
    token = None
    while True:
        with _as_os_errors(folder):
            page = _store(folder).page(bucket, root + beginning, most, token, flat=flat)
        yield [(name.removeprefix(root), size) for name, size in page.objects]
        token = page.next
        if not token:
            return


def read(path: str) -> bytes:
    """Return the content of an object."""
    with _as_os_errors(path):
        return _store(path).files.cat_file(path)


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the contents of byte ranges [start, end) of an object, fetched concurrently."""
    if not ranges:
        return []
    starts, ends = zip(*ranges, strict=True)
    with _as_os_errors(path):
        return _store(path).files.cat_ranges(
            [path] * len(ranges), list(starts), list(ends), on_error="raise"
        )


def open_to_read(path: str) -> BinaryIO:
    """Open an object for reading, with read-ahead in blocks."""
    with _as_os_errors(path):
        file = _store(path).files.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
    return io.BufferedReader(cast(Any, _Reader(path, file)), 1 << 20)


def write(path: str, data: bytes, generation: str | None = None) -> str:
    """Write an object in one request and return its generation.

    Args:
      path: the object.
      data: its content.
      generation: generation to replace; NEW requires a missing object; None overwrites any.

    Raises:
      FileExistsError: the object has another generation and other content.
    """
    with _as_os_errors(path):
        try:
            return _store(path).write(*_split(path), data, generation)
        except FileExistsError:
            # The answer to an earlier attempt of this request may have been lost.
            with contextlib.suppress(FileNotFoundError):
                if _store(path).files.cat_file(path) == data:
                    return _store(path).stat(*_split(path)).generation
            raise


def upload(file: str, path: str) -> None:
    """Upload a local file atomically: the object appears once it is complete."""
    if os.path.getsize(file) < _ONE_REQUEST_BYTES:
        with open(file, "rb") as small:
            write(path, small.read())
        return
    with _as_os_errors(path):
        _store(path).files.put_file(file, path, **_store(path).upload_options)


def copy(old: str, new: str) -> None:
    """Copy an object within its store."""
    with _as_os_errors(old):
        _store(old).files.cp_file(old, new)


def delete(path: str, generation: str | None = None) -> None:
    """Delete an object.

    Args:
      path: the object.
      generation: required generation; None deletes any.

    Raises:
      FileNotFoundError: the object does not exist. S3 reports this only for a given generation.
      OSError: it has another generation.
    """
    with _as_os_errors(path):
        _store(path).delete(*_split(path), generation)


def same_store(one: str, other: str) -> bool:
    """Return whether two paths are in buckets of the same store."""
    return _scheme(one) == _scheme(other)


def _scheme(path: str) -> str:
    return next(scheme for scheme in SCHEMES if path.startswith(scheme))


def _split(path: str) -> tuple[str, str]:
    bucket, _, name = path.removeprefix(_scheme(path)).partition("/")
    return bucket, name


def _store(path: str) -> Store:
    return store(_scheme(path))


class _Reader(io.RawIOBase):
    """A raw stream of an object, whose errors are OSErrors."""

    def __init__(self, path: str, file: Any) -> None:
        self._path, self._file = path, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        with _as_os_errors(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    """Convert the store's exceptions to OSErrors with the errno and filename of `path`."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object or bucket", path) from None
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "the object already exists", path) from None
    except Exception as error:  # The libraries' exceptions have no common base class.
        if is_fault(error):
            raise
        if isinstance(error, OSError) and error.filename:
            raise  # It is the error of a local file.
        raise _store(path).explained(error, path) from error
