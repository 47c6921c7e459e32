"""Files to read or write, on a disk or in a bucket (gs://…).

All functions raise OSError with the file's name and a reason to report.
"""

import abc
import base64
import concurrent.futures
import contextlib
import errno
import functools
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_BUCKETS = "gs://"

# Reads are short and mostly wait, so there are more of them than cores. They are threads on a disk
# and requests in a bucket.
_DISK_THREADS = 16
_REQUESTS = 128


class Part(NamedTuple):
    """A byte range of a file."""

    name: str  # name of the file in its folder
    offset: int
    length: int


class Folder(abc.ABC):
    """A folder, safe to use from several threads."""

    def __init__(self, path: str) -> None:
        """Args: path: the given path, without a slash at its end."""
        self.path = path

    @abc.abstractmethod
    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each file directly in the folder, by its name."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """Return the contents of a file."""

    @abc.abstractmethod
    def read_parts(self, parts: Sequence[Part]) -> list[bytes]:
        """Read many parts of files at once; a part past its file's end comes back shorter."""


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """Return the folder at a path, without reading it.

    >>> open_folder("gs://clips/train/").path, open_folder("snapshots/train").path
    ('gs://clips/train', 'snapshots/train')
    """
    text = os.fspath(path)
    text = text.rstrip("/") or text
    return _Bucket(text) if in_bucket(text) else _Disk(text)


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is in a bucket.

    >>> in_bucket("gs://clips/train"), in_bucket("snapshots/train")
    (True, False)
    """
    return os.fspath(path).startswith(_BUCKETS)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the contents of the file at a path."""
    folder, _, name = os.fspath(path).rpartition("/")
    return open_folder(folder or ("/" if os.path.isabs(path) else ".")).read(name)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file atomically; concurrent readers see the old contents or the new."""
    path = os.fspath(path)
    if in_bucket(path):
        with told(path):
            _store().pipe_file(path, data)
        return
    with open(f"{path}.tmp", "wb") as file:
        file.write(data)
    os.replace(f"{path}.tmp", path)


def object_checksums(folder: str) -> dict[str, tuple[int, str]]:
    """Return size and CRC-32C of all objects under a bucket's folder, by their path in it."""
    bucket, _, path = folder.removeprefix(_BUCKETS).partition("/")
    prefix = f"{path.rstrip('/')}/" if path else ""
    return {
        item["name"].removeprefix(prefix): (
            int(item["size"]),
            base64.b64decode(item["crc32c"]).hex(),
        )
        for item in _listed(folder, bucket, prefix, "name,size,crc32c")
    }


def object_generation(path: str) -> str:
    """Return an object's generation, which changes with each write."""
    bucket, _, name = path.removeprefix(_BUCKETS).partition("/")
    with told(path):
        return _store().call("GET", "b/{}/o/{}", bucket, name, json_out=True)["generation"]


def write_object(path: str, data: bytes, generation: str) -> str:
    """Write a small object in place of one generation; "0" only creates a new object.

    Returns:
      The new generation.

    Raises:
      FileExistsError: the object has another generation.
    """
    bucket, _, name = path.removeprefix(_BUCKETS).partition("/")
    store = _store()
    separator = uuid.uuid4().hex
    parts = (
        (b"application/json", json.dumps({"name": name}).encode()),
        (b"application/octet-stream", data),
    )
    body = b"".join(
        b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (separator.encode(), kind, part)
        for kind, part in parts
    )
    with told(path):
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


def delete_object(path: str, generation: str) -> None:
    """Delete one generation of an object.

    Raises:
      FileExistsError: the object has another generation.
    """
    bucket, _, name = path.removeprefix(_BUCKETS).partition("/")
    with told(path):
        _store().call("DELETE", "b/{}/o/{}", bucket, name, ifGenerationMatch=generation)


def move_folder(old: str, new: str) -> None:
    """Move all objects under a folder of a bucket."""
    with told(old):
        _store().mv(old, new, recursive=True)


def _listed(
    folder: str, bucket: str, prefix: str, fields: str, **parameters: str
) -> Iterator[dict[str, Any]]:
    """Yield the given fields of the objects whose names begin with `prefix`."""
    token = None
    with told(folder):
        while True:
            page = _store().call(
                "GET",
                "b/{}/o",
                bucket,
                prefix=prefix,
                pageToken=token,
                # gcsfs's own listing requests all fields of each object: 20 times as much data.
                fields=f"nextPageToken,items({fields})",
                json_out=True,
                **parameters,
            )
            yield from page.get("items", ())
            token = page.get("nextPageToken")
            if not token:
                return


class _Disk(Folder):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._threads = concurrent.futures.ThreadPoolExecutor(_DISK_THREADS, "read")

    def sizes(self) -> dict[str, int]:
        with os.scandir(self.path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def read(self, name: str) -> bytes:
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read()

    def read_parts(self, parts: Sequence[Part]) -> list[bytes]:
        return list(self._threads.map(self._read_part, parts))

    def _read_part(self, part: Part) -> bytes:
        descriptor = os.open(os.path.join(self.path, part.name), os.O_RDONLY)
        try:
            return os.pread(descriptor, part.length, part.offset)
        finally:
            os.close(descriptor)


class _Bucket(Folder):
    """A folder in a bucket, read by gcsfs, which retries failed requests where that is safe."""

    def sizes(self) -> dict[str, int]:
        bucket, _, folder = self.path.removeprefix(_BUCKETS).partition("/")
        prefix = f"{folder}/" if folder else ""
        listed = _listed(self.path, bucket, prefix, "name,size", delimiter="/")
        return {item["name"].removeprefix(prefix): int(item["size"]) for item in listed}

    def read(self, name: str) -> bytes:
        with told(f"{self.path}/{name}"):
            return _store().cat_file(f"{self.path}/{name}")

    def read_parts(self, parts: Sequence[Part]) -> list[bytes]:
        with told(self.path):
            answers = _store().cat_ranges(
                [f"{self.path}/{part.name}" for part in parts],
                [part.offset for part in parts],
                [part.offset + part.length for part in parts],
                batch_size=_REQUESTS,
                on_error="return",
            )
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, BaseException):
                with told(f"{self.path}/{part.name}"):
                    raise answer
        return answers


@functools.lru_cache(maxsize=1)
def _store() -> Any:
    return import_gcsfs().GCSFileSystem(use_listings_cache=False)


def import_gcsfs() -> Any:
    """Return the gcsfs library, configured for this module."""
    # Without this setting gcsfs first asks each bucket whether its kind uses another protocol. With
    # an emulator that lacks the answer, this takes a minute.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs

    return gcsfs


def bucket_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions, besides OSError, of the libraries that use buckets."""
    import aiohttp
    import google.api_core.exceptions
    import google.auth.exceptions
    import requests

    return (
        import_gcsfs().retry.HttpError,
        aiohttp.ClientError,
        google.api_core.exceptions.GoogleAPIError,
        google.auth.exceptions.GoogleAuthError,
        requests.RequestException,
    )


@contextlib.contextmanager
def told(path: str) -> Iterator[None]:
    """Convert exceptions of gcsfs to the form of the operating system's errors."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object or bucket", path) from None
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "the object exists already", path) from None
    except Exception as error:  # gcsfs, aiohttp and google-auth have no common base
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # The first of gcsfs's lines is an address, the last is the server's message.
        why = f"the bucket refuses or does not answer ({lines[-1][:200]})"
        raise OSError(errno.EIO, why, path) from error
