"""Planned rows on their way to the work items: in files beside the shards, in batches by shard.

Beam spends more on an element than it takes to read a row, and engines that group in memory hold
several copies of all they group. So only places pass between workers: of rows and, where a bucket
is listed, of its video files. The files are removed when the snapshot is complete; those of a run
that was cut short, when the next one begins.
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

_ROWS = 1 << 18  # that wait in memory for others of their shard: some 70 MB
_REJECTS = 1 << 12

_OF_ROWS, _OF_VIDEOS = "rows-", "videos-"  # begin the files' names
_LEVEL = 1  # of zlib: halves a batch in a microsecond a row

Place = tuple[str, tuple[int, int]]  # a file's name; offset and length there, bytes
NOWHERE: Place = ("", (0, 0))  # where a shard without rows has them


class Requests(NamedTuple):
    """Rows of one shard."""

    shard: int
    place: Place


class Videos(NamedTuple):
    """Video files of one shard's videos, wanted or not."""

    shard: int
    place: Place


class Rejects(NamedTuple):
    """Rejects of one annotation file, in order; none of another batch lies between them."""

    file: str
    row: int  # the first one's
    place: Place


class Count(NamedTuple):
    """How many rows were read, counted apart from what became of them."""

    rows: int


def write(
    files: Iterable[Iterable[ClipRequest | Reject]], num_shards: int, folder: str
) -> Iterator[Requests | Rejects | Count]:
    """Writes the rows of some annotation files, in constant memory."""
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
    """Writes video files (video id, path, bytes), in constant memory."""
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
    """The rows at some places; those of video files are passed over."""
    return map(from_json, _lines(folder, places, _OF_ROWS))


def videos(folder: str, places: Iterable[Place]) -> dict[str, int]:
    """The paths and bytes of video files at some places; those of rows are passed over."""
    return dict(map(json.loads, _lines(folder, places, _OF_VIDEOS)))


def rejects(folder: str, place: Place) -> Iterator[Reject]:
    """The rejects at a place."""
    yield from PlanSummary.FromString(_read(folder, place)).rejects


def remove(folder: str) -> None:
    """Removes the files, also those of attempts that an engine repeated."""
    for name in storage.names(folder):
        if name.startswith((_OF_ROWS, _OF_VIDEOS)) and name.endswith(storage.UNFINISHED):
            with contextlib.suppress(FileNotFoundError):  # another run ends just now
                storage.remove(os.path.join(folder, name))


class _Batch:
    """Rows that wait for others of their shard."""

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
        """Rejects of the next file go into a batch of their own."""
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
    """A file of batches, whose name no other run of the work item takes."""

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
    """All lines at those places that are in files whose names begin so."""
    for place in places:
        if place[0].startswith(beginning):
            yield from _read(folder, place).splitlines()


def _read(folder: str, place: Place) -> bytes:
    name, (offset, length) = place
    (data,) = storage.read_ranges(os.path.join(folder, name), [(offset, offset + length)])
    return zlib.decompress(data)
