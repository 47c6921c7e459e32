"""A cache on a disk for what is read from snapshots in buckets, shared by a host's processes.

A cached shard is a sparse file, with each record at its offset in the shard. A hole reads as
zeros, which is no valid frame, so a record's own checksums say whether it is cached, whole and
undamaged. There is no index that could contradict the data, and no lock between processes.

The environment variables SVILM_CACHE (a folder) and SVILM_CACHE_SIZE (such as 200GB) switch it on.
"""

import concurrent.futures
import contextlib
import errno
import functools
import hashlib
import os
import pathlib
import re
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from protos import tfrecord
from protos.v1 import manifest_pb2
from trainer import progress
from trainer.data.folder import Folder, Part, in_bucket
from trainer.errors import UserError

FOLDER_VARIABLE, SIZE_VARIABLE = "SVILM_CACHE", "SVILM_CACHE_SIZE"

# The cache touches nothing else in the user's folder. A change of the layout changes the name.
_SUBFOLDER = "svilm-cache-1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_THREADS = 16
_BLOCK = 4096  # bytes that a file system allocates at once

# A shard that was used this recently is not evicted. Epochs visit all shards in turn, so without
# this limit a snapshot larger than the cache would evict its own records before their next use.
_IN_USE_S = 600.0
_TOUCH_EVERY_S = 60.0
# A full cache without idle shards is scanned again after this time.
_RETRY_S = 10.0
# Fraction of the limit that a process writes between two scans of the folder.
_SHARE = 64


# A full disk must not keep a run from resuming.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class CacheError(UserError, ValueError):
    """A cache that cannot be used."""


class Counts(NamedTuple):
    """Reads of a process since its start."""

    hits: int = 0
    hit_bytes: int = 0
    misses: int = 0
    missed_bytes: int = 0


class Cache:
    """A cache in a folder on a disk, safe to use from several threads and processes."""

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        """Create the folder if it is missing.

        Args:
          folder: the folder, on a disk of this host.
          limit: maximum size in bytes. k processes that write at once may exceed it by (k − 1)/64.

        Raises:
          CacheError: the folder cannot be written, or has no sparse files.
        """
        self.folder = os.fspath(folder)
        self.counts = Counts()
        self.serves = False  # whether a snapshot in a bucket was opened
        self._records = pathlib.Path(folder) / _SUBFOLDER
        self._limit = limit
        self._lock = threading.Lock()
        self._allowed = 0  # bytes that may be written before the next scan
        self._next_scan = 0.0
        self._writes = True
        self._touched: dict[str, float] = {}
        try:
            self._create_folder()
            with tempfile.TemporaryFile(dir=self._records) as probe:
                os.pwrite(probe.fileno(), b"x", 2**24)
                sparse = _allocated(os.stat(probe.fileno())) < 2**24
        except OSError as error:
            if error.errno not in _FULL:
                raise CacheError(
                    f"the cache's folder {folder} cannot be written ({error.strerror}): give a "
                    "folder on a disk of this host"
                ) from None
            self._stop_writing(error)
            return
        if not sparse:
            raise CacheError(
                f"the file system of the cache's folder {folder} has no sparse files: give a "
                "folder on ext4, XFS, Btrfs or tmpfs"
            )

    def read(self, key: str, part: Part) -> bytes:
        """Return the bytes at a part's place; shorter, zeros or damaged if they are not cached."""
        try:
            descriptor = os.open(self._records / key, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return b""
        try:
            return os.pread(descriptor, part.length, part.offset)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def touch(self, key: str) -> None:
        """Note that a shard is in use."""
        now = time.monotonic()
        if now - self._touched.get(key, -_TOUCH_EVERY_S) >= _TOUCH_EVERY_S:
            self._touched[key] = now
            with contextlib.suppress(OSError):  # evicted, or someone deleted the cache
                os.utime(self._records / key)

    def write(self, key: str, part: Part, data: bytes) -> None:
        """Write bytes at a part's place, if the limit allows it.

        After an error, such as a full disk, it warns and writes nothing more.
        """
        if not self._writes:
            return
        try:
            # The record may begin and end within a block.
            if self._reserve((len(data) // _BLOCK + 2) * _BLOCK):
                self._write(key, part, data)
        except OSError as error:
            self._stop_writing(error)

    def _stop_writing(self, error: OSError) -> None:
        with self._lock:
            first, self._writes = self._writes, False
        if first:
            progress.warn(
                f"cache: {self.folder} cannot be written ({error.strerror}): records that it "
                "lacks are read from the bucket each time"
            )

    def count(self, hits: Sequence[bytes], misses: Sequence[bytes]) -> None:
        """Add reads to the counts."""
        added = (len(hits), sum(map(len, hits)), len(misses), sum(map(len, misses)))
        with self._lock:
            self.counts = Counts(*(a + b for a, b in zip(self.counts, added, strict=True)))

    def _create_folder(self) -> None:
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _write(self, key: str, part: Part, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._records / key, flags, 0o600)
        except FileNotFoundError:  # someone deleted the cache
            self._create_folder()
            descriptor = os.open(self._records / key, flags, 0o600)
        try:
            # A full disk may cut the last write short. The rest then reads as a damaged record.
            os.pwrite(descriptor, data, part.offset)
        finally:
            os.close(descriptor)

    def _reserve(self, size: int) -> bool:
        """Return whether `size` bytes may be written, after a scan if it is due."""
        with self._lock:
            if self._allowed < size and time.monotonic() >= self._next_scan:
                self._allowed = self._make_room(size)
                if self._allowed < size:
                    self._next_scan = time.monotonic() + _RETRY_S
            if self._allowed < size:
                return False
            self._allowed -= size
            return True

    def _make_room(self, size: int) -> int:
        """Evict idle shards as far as needed, and return the bytes that may now be written."""
        files = self._files()
        total = sum(_allocated(stat) for _, stat in files)
        share = max(self._limit // _SHARE, size)
        if total + share > self._limit:
            now = time.time()
            for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
                if total + 2 * share <= self._limit:
                    break
                if abs(now - stat.st_mtime) > _IN_USE_S:
                    path.unlink(missing_ok=True)
                    total -= _allocated(stat)
        return min(share, self._limit - total)

    def _files(self) -> list[tuple[pathlib.Path, os.stat_result]]:
        found = []
        with contextlib.suppress(FileNotFoundError):  # someone deleted the cache
            for path in self._records.iterdir():
                with contextlib.suppress(FileNotFoundError):  # another process evicted it
                    if _SHA256.fullmatch(path.name):
                        found.append((path, path.lstat()))
        return found


class CachedFolder(Folder):
    """The folder of a snapshot in a bucket, whose shards, indices and summaries are cached.

    The keys are the sha256 of the files in the manifest, so another version of a file has another
    key. A bucket's files are used for that bucket alone, so that a false manifest in another one
    cannot spoil them.
    """

    def __init__(self, folder: Folder, manifest: manifest_pb2.Manifest, cache: Cache) -> None:
        """Args: folder: the folder in the bucket; manifest: that of its snapshot."""
        super().__init__(folder.path)
        self._folder = folder
        self._cache = cache
        self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, "cache")
        self._shards = {shard.data.name for shard in manifest.shards}
        bucket = "/".join(folder.path.split("/")[:3])
        self._sha256, self._keys = {}, {}
        for shard in manifest.shards:
            for entry in (shard.data, shard.index, shard.summary):
                if _SHA256.fullmatch(entry.sha256):
                    self._sha256[entry.name] = entry.sha256
                    named = f"{bucket} {entry.sha256}"
                    self._keys[entry.name] = hashlib.sha256(named.encode()).hexdigest()

    def sizes(self) -> dict[str, int]:
        """List the bucket."""
        return self._folder.sizes()

    def read(self, name: str) -> bytes:
        """Read from the bucket."""
        return self._folder.read(name)

    def read_parts(self, parts: Sequence[Part]) -> list[bytes]:
        """Read the parts that are cached, and fetch and cache all others."""
        found = list(self._threads.map(self._cached, parts))
        missed = [part for part, data in zip(parts, found, strict=True) if data is None]
        fetched = self._folder.read_parts(missed) if missed else []
        list(self._threads.map(self._keep, missed, fetched))
        self._cache.count([data for data in found if data is not None], fetched)
        rest = iter(fetched)
        return [next(rest) if data is None else data for data in found]

    def _cached(self, part: Part) -> bytes | None:
        key = self._keys.get(part.name)
        if key is None:
            return None
        data = self._cache.read(key, part)
        if not self._is_whole(part, data):
            return None
        self._cache.touch(key)
        return data

    def _keep(self, part: Part, data: bytes) -> None:
        if part.name in self._keys and self._is_whole(part, data):
            self._cache.write(self._keys[part.name], part, data)

    def _is_whole(self, part: Part, data: bytes) -> bool:
        if len(data) != part.length:
            return False
        if part.name not in self._shards:
            return hashlib.sha256(data).hexdigest() == self._sha256[part.name]
        try:
            tfrecord.unframe(data)
        except tfrecord.CorruptRecordError:
            return False
        return True


def cached(folder: Folder, manifest: manifest_pb2.Manifest) -> Folder:
    """Return a snapshot's folder with the cache of the environment, if it is in a bucket.

    Raises:
      CacheError: the environment's cache cannot be used.
    """
    cache = from_environment() if in_bucket(folder.path) else None
    if cache is None:
        return folder
    cache.serves = True
    return CachedFolder(folder, manifest, cache)


def from_environment() -> Cache | None:
    """Return the cache that the environment names; None if it names none.

    Raises:
      CacheError: only one of the variables is set, or the cache cannot be used.
    """
    folder, size = (os.environ.get(name, "") for name in (FOLDER_VARIABLE, SIZE_VARIABLE))
    if not folder and not size:
        return None
    if not folder or not size:
        raise CacheError(
            f"a cache needs a folder and a size: set both {FOLDER_VARIABLE} and {SIZE_VARIABLE}, "
            "or give both --cache and --cache-size"
        )
    if in_bucket(folder):
        raise CacheError(f"the cache's folder {folder} is in a bucket: give a folder on a disk")
    return _opened(os.path.abspath(folder), size_in_bytes(size))


@functools.cache
def _opened(folder: str, limit: int) -> Cache:
    return Cache(folder, limit)


def size_in_bytes(text: str) -> int:
    """Parse a size with an SI unit and return it in bytes.

    Raises:
      CacheError: `text` is not a size.

    >>> size_in_bytes("1.5TB")
    1500000000000
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([kMGT]B)", text)
    if not found or not float(found[1]):
        raise CacheError(f"{text!r} is not a size of a cache: write 500GB or 1.5TB, for example")
    return round(float(found[1]) * {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[found[2]])


def _allocated(stat: os.stat_result) -> int:
    """Return the bytes that a file takes on its disk, without its holes."""
    return stat.st_blocks * 512
