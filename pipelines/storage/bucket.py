"""Objects in Google Cloud Storage, accessed with gcsfs.

Nothing is cached in memory, and every error is an OSError. STORAGE_EMULATOR_HOST overrides the
server, as in all of Google's clients.
"""

import contextlib
import errno
import functools
import io
import json
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

SCHEME = "gs://"

# Larger objects are uploaded in parts, because gcsfs retries failed parts.
_ONE_REQUEST_BYTES = 5 << 20
_BLOCK_BYTES = 8 << 20  # read-ahead of an open object
_PAGE = 1000  # maximum number of objects in one page of a listing


class Object(NamedTuple):
    """The metadata of an existing object."""

    bytes: int
    generation: str  # changes with each write


def stat(path: str) -> Object:
    """Return an object's size and generation."""
    with _told(path):
        found = _store().call("GET", "b/{}/o/{}", *_split(path), json_out=True)
    return Object(int(found["size"]), found["generation"])


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
    for page in _pages(folder, "", delimiter="/", maxResults=most or _PAGE):
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
    for page in _pages(folder, beginning, maxResults=_PAGE):
        yield from page


def _pages(folder: str, beginning: str, **parameters: Any) -> Iterator[list[tuple[str, int]]]:
    bucket, root = _split(folder.rstrip("/") + "/")
    token = None
    while True:
        with _told(folder):
            page = _store().call(
                "GET",
                "b/{}/o",
                bucket,
                prefix=root + beginning,
                pageToken=token,
                fields="nextPageToken,items(name,size)",
                json_out=True,
                **parameters,
            )
        yield [
            (item["name"].removeprefix(root), int(item["size"])) for item in page.get("items", ())
        ]
        token = page.get("nextPageToken")
        if not token:
            return


def read(path: str) -> bytes:
    """Return the content of an object."""
    with _told(path):
        return _store().cat_file(path)


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the contents of byte ranges [start, end) of an object, fetched concurrently."""
    if not ranges:
        return []
    starts, ends = zip(*ranges, strict=True)
    with _told(path):
        return _store().cat_ranges([path] * len(ranges), list(starts), list(ends), on_error="raise")


def open_to_read(path: str) -> BinaryIO:
    """Open an object for reading, with read-ahead in blocks."""
    with _told(path):
        file = _store().open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
    return io.BufferedReader(cast(Any, _Reader(path, file)), 1 << 20)


def write(path: str, data: bytes, generation: str | None = None) -> str:
    """Write an object in one request and return its generation.

    Args:
      path: the object.
      data: its content.
      generation: generation to replace; "0" requires that no object exists; None overwrites any.

    Raises:
      FileExistsError: the object has another generation.
    """
    bucket, name = _split(path)
    store = _store()
    separator = uuid.uuid4().hex  # The fixed separator of gcsfs might occur in annotations.
    parts = (
        (b"application/json", json.dumps({"name": name}).encode()),
        (b"application/octet-stream", data),
    )
    body = b"".join(
        b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (separator.encode(), kind, part)
        for kind, part in parts
    )
    with _told(path):
        written = store.call(
            "POST",
            store.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
            bucket,
            uploadType="multipart",
            ifGenerationMatch=generation,
            headers={"Content-Type": f"multipart/related; boundary={separator}"},
            data=body + b"--%s--" % separator.encode(),
            json_out=True,
        )
    return written["generation"]


def upload(file: str, path: str) -> None:
    """Upload a local file atomically: the object appears once it is complete."""
    if os.path.getsize(file) < _ONE_REQUEST_BYTES:
        with open(file, "rb") as small:
            write(path, small.read())
        return
    with _told(path):
        _store().put_file(file, path, content_type="application/octet-stream", consistency="md5")


def copy(old: str, new: str) -> None:
    """Copy an object within the store."""
    with _told(old):
        _store().cp_file(old, new)


def delete(path: str, generation: str | None = None) -> None:
    """Delete an object.

    Args:
      path: the object.
      generation: required generation; None deletes any.

    Raises:
      FileNotFoundError: the object does not exist.
      FileExistsError: it has another generation.
    """
    with _told(path):
        _store().call("DELETE", "b/{}/o/{}", *_split(path), ifGenerationMatch=generation)


def _split(path: str) -> tuple[str, str]:
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    return bucket, name


@functools.lru_cache(maxsize=1)
def _store() -> Any:
    # Otherwise gcsfs first queries whether a bucket needs another protocol. With an emulator that
    # does not know the query, this takes a minute.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs

    if not os.environ.get("SVILM_TRACE"):
        logging.getLogger("gcsfs").disabled = True  # Callers report its errors.
    return gcsfs.GCSFileSystem(use_listings_cache=False)


class _Reader(io.RawIOBase):
    """A raw stream of a gcsfs file, whose errors are OSErrors."""

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
        with _told(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Convert gcsfs's exceptions to OSErrors with the errno and filename of `path`."""
    import aiohttp
    import google.auth.exceptions
    import requests

    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object or bucket", path) from None
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "the object is there already", path) from None
    except google.auth.exceptions.GoogleAuthError as error:
        raise PermissionError(errno.EACCES, _no_credentials(error), path) from None
    except (aiohttp.ClientError, requests.RequestException, TimeoutError) as error:
        why = _first_line(error)
        raise ConnectionError(errno.EHOSTUNREACH, f"cannot be reached ({why})", path) from None
    except OSError as error:
        if error.filename:
            raise  # It is the error of a local file.
        raise PermissionError(errno.EACCES, f"access denied ({_reason(error)})", path) from None
    except Exception as error:  # gcsfs's HttpError and others have no common base class.
        if str(getattr(error, "code", "")) == "401":
            raise PermissionError(errno.EACCES, _no_credentials(error), path) from None
        raise OSError(errno.EIO, f"the store answered: {_reason(error)}", path) from error


def _no_credentials(error: Exception) -> str:
    return (
        f"no credentials that may use it ({_reason(error)}): `gcloud auth application-default "
        "login` makes some, GOOGLE_APPLICATION_CREDENTIALS names others"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:200]


def _reason(error: Exception) -> str:
    """Return the last line of gcsfs's message: the server's answer. The first line is a URL."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
