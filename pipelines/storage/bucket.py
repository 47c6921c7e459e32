"""Objects of Google Cloud Storage, by gcsfs: nothing is kept in memory, every error an OSError.

STORAGE_EMULATOR_HOST names another server, as for all of Google's clients.
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

# Larger ones go in parts, of which gcsfs repeats those that fail.
_ONE_REQUEST_BYTES = 5 << 20
_BLOCK_BYTES = 8 << 20
_PAGE = 1000  # objects of a listing, at most


class Object(NamedTuple):
    """An object that is there."""

    bytes: int
    generation: str  # another one after each write


def stat(path: str) -> Object:
    """An object's size and generation."""
    with _told(path):
        found = _store().call("GET", "b/{}/o/{}", *_split(path), json_out=True)
    return Object(int(found["size"]), found["generation"])


def names(folder: str, most: int | None = None) -> list[str]:
    """The names of the objects directly in a folder, sorted, or of some of them.

    A folder of no objects is the same as none.

    Raises:
      FileNotFoundError: there is no such bucket.
    """
    found: list[str] = []
    for page in _pages(folder, "", delimiter="/", maxResults=most or _PAGE):
        found += [name for name, _ in page if name]
        if most and found:
            break
    return sorted(found)


def listing(folder: str, beginning: str = "") -> Iterator[tuple[str, int]]:
    """The objects in a folder, however deep, whose paths there have this beginning: path, bytes.

    A request a thousand of them.

    Raises:
      FileNotFoundError: there is no such bucket.
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
    """A whole object."""
    with _told(path):
        return _store().cat_file(path)


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Parts of an object, [start, end) each, several at a time."""
    if not ranges:
        return []
    starts, ends = zip(*ranges, strict=True)
    with _told(path):
        return _store().cat_ranges([path] * len(ranges), list(starts), list(ends), on_error="raise")


def open_to_read(path: str) -> BinaryIO:
    """An object as a file, read ahead in blocks."""
    with _told(path):
        file = _store().open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
    return io.BufferedReader(cast(Any, _Reader(path, file)), 1 << 20)


def write(path: str, data: bytes, generation: str | None = None) -> str:
    """Writes an object in one request and returns its generation.

    Args:
      path: the object.
      data: all of it.
      generation: only in place of this one; "0": only if there is none; None: in any case.

    Raises:
      FileExistsError: the object has another generation.
    """
    bucket, name = _split(path)
    store = _store()
    separator = uuid.uuid4().hex  # gcsfs takes a fixed one, which annotations might hold
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
    """Writes an object from a local file; it is there when all of it is."""
    if os.path.getsize(file) < _ONE_REQUEST_BYTES:
        with open(file, "rb") as small:
            write(path, small.read())
        return
    with _told(path):
        _store().put_file(file, path, content_type="application/octet-stream", consistency="md5")


def copy(old: str, new: str) -> None:
    """Copies an object within the store."""
    with _told(old):
        _store().cp_file(old, new)


def delete(path: str, generation: str | None = None) -> None:
    """Deletes an object, or only this generation of it.

    Raises:
      FileNotFoundError: it is not there.
      FileExistsError: it has another generation.
    """
    with _told(path):
        _store().call("DELETE", "b/{}/o/{}", *_split(path), ifGenerationMatch=generation)


def _split(path: str) -> tuple[str, str]:
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    return bucket, name


@functools.lru_cache(maxsize=1)
def _store() -> Any:
    # Else each bucket is asked first, for a minute where the answer is unknown to an emulator,
    # whether it is of a kind that speaks another protocol.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs

    if not os.environ.get("SVILM_TRACE"):
        logging.getLogger("gcsfs").disabled = True  # its errors are told by who asked
    return gcsfs.GCSFileSystem(use_listings_cache=False)


class _Reader(io.RawIOBase):
    """A file of gcsfs whose errors are OSErrors."""

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
    """Gives what gcsfs raises the form that the operating system's errors have."""
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
            raise  # a local file's
        raise PermissionError(errno.EACCES, f"access denied ({_reason(error)})", path) from None
    except Exception as error:  # gcsfs's HttpError and others of no common base
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
    """What the server said: of gcsfs's lines the last, as the first is an address."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
