"""Files to read or write, on a disk or in a bucket: gs://… by gcsfs, s3://… by s3fs.

All functions raise OSError with the file's name and a reason to report. Functions that name an
object's generation are for gs:// alone, which has the only buckets that a run can be in
(trainer/runs/run_path.py).
"""

import abc
import base64
import concurrent.futures
import contextlib
import errno
import functools
import json
import os
import pathlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trainer.errors import is_fault

_GCS, _S3 = "gs://", "s3://"

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

    >>> in_bucket("gs://clips/train"), in_bucket("s3://clips/train"), in_bucket("snapshots/train")
    (True, True, False)
    """
    return os.fspath(path).startswith((_GCS, _S3))


def in_s3(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is in a bucket of S3.

    >>> in_s3("gs://clips/train"), in_s3("s3://clips/train")
    (False, True)
    """
    return os.fspath(path).startswith(_S3)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the contents of the file at a path."""
    folder, _, name = os.fspath(path).rpartition("/")
    return open_folder(folder or ("/" if os.path.isabs(path) else ".")).read(name)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file atomically; concurrent readers see the old contents or the new."""
    path = os.fspath(path)
    if in_bucket(path):
        with as_os_errors(path):
            _store(path).pipe_file(path, data)
        return
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yield the path of a new file, which atomically replaces a file on a disk at the end.

    If the block raises, the new file is removed and the old one stays.
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def object_checksums(folder: str) -> dict[str, tuple[int, str]]:
    """Return size and CRC-32C of all objects under a bucket's folder, by their path in it."""
    with as_os_errors(folder):
        found = _store(folder).find(folder, detail=True)
    prefix = f"{folder.removeprefix(_GCS)}/"
    return {
        name.removeprefix(prefix): (about["size"], base64.b64decode(about["crc32c"]).hex())
        for name, about in found.items()
    }


def object_generation(path: str) -> str:
    """Return an object's generation, which changes with each write."""
    bucket, _, name = path.removeprefix(_GCS).partition("/")
    with as_os_errors(path):
        return _store(path).call("GET", "b/{}/o/{}", bucket, name, json_out=True)["generation"]


def write_object(path: str, data: bytes, generation: str) -> str:
    """Write a small object in place of one generation; "0" only creates a new object.

    Returns:
      The new generation.

    Raises:
      FileExistsError: the object has another generation.
    """
    bucket, _, name = path.removeprefix(_GCS).partition("/")
    store = _store(path)
    separator = uuid.uuid4().hex
    parts = (
        (b"application/json", json.dumps({"name": name}).encode()),
        (b"application/octet-stream", data),
    )
    body = b"".join(
        b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (separator.encode(), kind, part)
        for kind, part in parts
    )
    with as_os_errors(path):
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
    bucket, _, name = path.removeprefix(_GCS).partition("/")
    with as_os_errors(path):
        _store(path).call("DELETE", "b/{}/o/{}", bucket, name, ifGenerationMatch=generation)


def move_folder(old: str, new: str) -> None:
    """Move all objects under a folder of a bucket."""
    with as_os_errors(old):
        _store(old).mv(old, new, recursive=True)


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
    """A folder in a bucket, read by a library that retries failed requests where that is safe."""

    def sizes(self) -> dict[str, int]:
        with as_os_errors(self.path):
            listed = _store(self.path).ls(self.path, detail=True)
        prefix = f"{self.path.partition('://')[2]}/"
        return {
            entry["name"].removeprefix(prefix): entry["size"]
            for entry in listed
            if entry["type"] == "file"
        }

    def read(self, name: str) -> bytes:
        with as_os_errors(f"{self.path}/{name}"):
            return _store(self.path).cat_file(f"{self.path}/{name}")

    def read_parts(self, parts: Sequence[Part]) -> list[bytes]:
        with as_os_errors(self.path):
            answers = _store(self.path).cat_ranges(
                [f"{self.path}/{part.name}" for part in parts],
                [part.offset for part in parts],
                [part.offset + part.length for part in parts],
                batch_size=_REQUESTS,
                on_error="return",
            )
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, BaseException):
                with as_os_errors(f"{self.path}/{part.name}"):
                    raise answer
        return answers


def _store(path: str) -> Any:
    """Return the file system of a bucket."""
    return _s3() if in_s3(path) else _gcs()


@functools.cache
def _gcs() -> Any:
    return import_gcsfs().GCSFileSystem(use_listings_cache=False)


@functools.cache
def _s3() -> Any:
    import s3fs

    # By default, all but 10 requests wait for a connection.
    connections = {"max_pool_connections": _REQUESTS}
    return s3fs.S3FileSystem(use_listings_cache=False, config_kwargs=connections)


def import_gcsfs() -> Any:
    """Return the gcsfs library, configured for this module."""
    # Without this setting gcsfs first asks each bucket whether its kind uses another protocol. With
    # an emulator that lacks the answer, this takes a minute.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs

    return gcsfs


def bucket_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions, besides OSError, of the libraries that read and write runs."""
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
def as_os_errors(path: str) -> Iterator[None]:
    """Convert exceptions of gcsfs and s3fs to the form of the operating system's errors."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object or bucket", path) from None
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "the object exists already", path) from None
    except Exception as error:  # gcsfs, aiohttp, google-auth and botocore have no common base
        if is_fault(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # The first of gcsfs's lines is an address, the last is the server's message.
        why = f"the bucket refused the request or did not answer ({lines[-1][:200]})"
        raise OSError(errno.EIO, why, path) from error
