"""Temporary files that pass planned rows to the work items, in batches by shard.

The files lie in the folder of the shards. Beam spends more time on an element than reading a row
takes. Engines that group in memory hold several copies of the grouped elements. Therefore only
locations pass between workers: those of rows and, if a bucket is listed, those of its video files.
The files are removed when the snapshot is complete. The next run removes those of an interrupted
run.
"""

import contextlib
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipelines.snapshots.snapshot import shard_of
from pipelines.sources.clip_request import ClipRequest, from_json, row_order, to_json
from pipelines.storage import storage
from protos.v1.manifest_pb2 import PlanSummary, Reject

_ROWS = 1 << 18  # maximum number of rows buffered in memory, about 70 MB
_REJECTS = 1 << 12  # maximum number of rejects in one batch

_OF_ROWS, _OF_VIDEOS = "rows-", "videos-"  # prefixes of file names
_LEVEL = 1  # zlib level; halves a batch in 1 µs per row

Place = tuple[str, tuple[int, int]]  # file name; offset and length in it, bytes
NOWHERE: Place = ("", (0, 0))  # location without rows, so that empty shards are built too


class Requests(NamedTuple):
    """The location of a batch of rows of one shard."""

    shard: int
    place: Place


class Videos(NamedTuple):
    """The location of a batch of one shard's video files, annotated or not."""

    shard: int
    place: Place


class Rejects(NamedTuple):
    """The location of a batch of consecutive rejects of one annotation file."""

    file: str
    row: int  # number of the first row
    place: Place


class Count(NamedTuple):
    """The number of rows that were read, counted independently of their outcome."""

    rows: int


def write(
    files: Iterable[Iterable[ClipRequest | Reject]], num_shards: int, folder: str
) -> Iterator[Requests | Rejects | Count]:
    """Write the rows of annotation files in batches, in constant memory.

    Args:
      files: the rows of each annotation file.
      num_shards: number of shards of the snapshot.
      folder: folder of the snapshot.

    Yields:
      The location of each batch, and the number of rows read.
    """
    batch = _Batch(num_shards)
    for rows in files:
        for row in rows:
            batch.add(row)
            if batch.rows == _ROWS:
                yield from batch.write(folder)
                batch = _Batch(num_shards)
        batch.end_file()
    yield from batch.write(folder)


def write_videos(
    listing: Iterable[tuple[str, str, int]], num_shards: int, folder: str
) -> Iterator[Videos]:
    """Write a listing of video files in batches by shard, in constant memory.

    Args:
      listing: video id, path and size in bytes of each file.
      num_shards: number of shards of the snapshot.
      folder: folder of the snapshot.

    Yields:
      The location of each batch.
    """
    waiting: dict[int, list[str]] = {}
    for number, (video_id, path, size) in enumerate(listing, 1):
        shard = shard_of(video_id, num_shards)
        waiting.setdefault(shard, []).append(json.dumps((path, size)))
        if number % _ROWS == 0:
            yield from _write_videos(waiting, folder)
            waiting.clear()
    if waiting:
        yield from _write_videos(waiting, folder)


def requests(folder: str, places: Iterable[Place]) -> Iterator[ClipRequest]:
    """Yield the rows at the given locations, ignoring locations of video files."""
    return map(from_json, _lines(folder, places, _OF_ROWS))


def videos(folder: str, places: Iterable[Place]) -> dict[str, int]:
    """Return the video files' sizes in bytes by path, ignoring locations of rows."""
    return dict(map(json.loads, _lines(folder, places, _OF_VIDEOS)))


def rejects(folder: str, place: Place) -> Iterator[Reject]:
    """Yield the rejects at a location."""
    yield from PlanSummary.FromString(_read(folder, place)).rejects


def remove(folder: str) -> None:
    """Remove the temporary files, including those of attempts that an engine retried."""
    for name in storage.names(folder):
        if name.startswith((_OF_ROWS, _OF_VIDEOS)) and name.endswith(storage.UNFINISHED):
            with contextlib.suppress(FileNotFoundError):  # Another run may remove it at its end.
                storage.remove(os.path.join(folder, name))


class _Batch:
    """A buffer of rows, grouped by shard."""

    def __init__(self, num_shards: int) -> None:
        self.rows = 0
        self._num_shards = num_shards
        self._requests: dict[int, list[str]] = {}
        self._rejects: list[Reject] = []
        self._packed: list[tuple[str, int, bytes]] = []

    def add(self, row: ClipRequest | Reject) -> None:
        self.rows += 1
        if isinstance(row, ClipRequest):
            shard = shard_of(row.video_id, self._num_shards)
            self._requests.setdefault(shard, []).append(to_json(row))
            return
        self._rejects.append(row)
        if len(self._rejects) == _REJECTS:
            self.end_file()

    def end_file(self) -> None:
        """Close the current batch of rejects, so that no batch spans two files."""
        if self._rejects:
            data = PlanSummary(rejects=self._rejects).SerializeToString()
            file, row = row_order(self._rejects[0].source_row)
            self._packed.append((file, row, zlib.compress(data, _LEVEL)))
            self._rejects = []

    def write(self, folder: str) -> Iterator[Requests | Rejects | Count]:
        self.end_file()
        if not self.rows:
            return
        with _NewFile(folder, _OF_ROWS) as out:
            requests = [
                Requests(shard, out.append(_pack(lines))) for shard, lines in self._requests.items()
            ]
            rejects = [Rejects(file, row, out.append(data)) for file, row, data in self._packed]
        yield from requests
        yield from rejects
        yield Count(self.rows)


def _write_videos(by_shard: dict[int, list[str]], folder: str) -> list[Videos]:
    with _NewFile(folder, _OF_VIDEOS) as out:
        return [Videos(shard, out.append(_pack(lines))) for shard, lines in by_shard.items()]


class _NewFile(storage.NewFile):
    """A file of batches with a unique name, so that a retried work item writes another file."""

    def __init__(self, folder: str, beginning: str) -> None:
        self._name = f"{beginning}{uuid.uuid4().hex}{storage.UNFINISHED}"
        super().__init__(os.path.join(folder, self._name))

    def append(self, data: bytes) -> Place:
        place = self._name, (self.bytes, len(data))
        self.write(data)
        return place


def _pack(lines: list[str]) -> bytes:
    return zlib.compress("\n".join(lines).encode(), _LEVEL)


def _lines(folder: str, places: Iterable[Place], beginning: str) -> Iterator[bytes]:
    """Yield the lines at the given locations in files whose names start with `beginning`."""
    for place in places:
        if place[0].startswith(beginning):
            yield from _read(folder, place).splitlines()


def _read(folder: str, place: Place) -> bytes:
    name, (offset, length) = place
    (data,) = storage.read_ranges(os.path.join(folder, name), [(offset, offset + length)])
    return zlib.decompress(data)
