"""Reads a snapshot: its manifest at once, its shards' indices on demand, its records by offset.

Records are numbered through: by shard, in the manifest's order, then by place in the shard.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from google.protobuf import json_format, message
from jaxtyping import Int64

from protos import contract, tfrecord
from protos.v1 import clip_pb2, manifest_pb2

# Reads are short and wait on the disk, so more of them than cores.
_READ_THREADS = 16


class SnapshotError(RuntimeError):
    """A snapshot that is absent, unfinished, unreadable or damaged; one line, naming the file."""


class Location(NamedTuple):
    """Where a record lies."""

    shard: pathlib.Path
    offset: int  # bytes
    length: int  # bytes, framing included
    clip_id: str


class _ShardIndex(NamedTuple):
    offsets: Int64[np.ndarray, " records"]
    lengths: Int64[np.ndarray, " records"]
    clip_ids: list[str]


class Snapshot:
    """An open snapshot. Safe to read from several threads."""

    def __init__(self, folder: pathlib.Path, manifest: manifest_pb2.Manifest) -> None:
        """Use `open`."""
        self.folder = folder
        self.manifest = manifest
        # Number of the first record of each shard, and the total at the end.
        self._starts = np.cumsum([0, *(shard.records for shard in manifest.shards)])
        self._indices: dict[int, _ShardIndex] = {}
        self._index_lock = threading.Lock()
        self._threads = concurrent.futures.ThreadPoolExecutor(_READ_THREADS, "read")

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Snapshot":
        """Reads and checks the manifest; no shard is opened yet.

        Raises:
          SnapshotError: there is no complete snapshot of a readable version in `folder`.
        """
        folder = pathlib.Path(folder)
        manifest = _read_manifest(folder)
        for shard in manifest.shards:
            _check_file(folder, shard.data)
            _check_file(folder, shard.index)
        return cls(folder, manifest)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def locate(self, record: int) -> Location:
        """Where a record lies.

        Raises:
          IndexError: there is no such record.
          SnapshotError: the shard's index is missing or damaged.
        """
        if not 0 <= record < len(self):
            raise IndexError(f"record {record} is not one of the {len(self)} of {self.folder}")
        shard = int(np.searchsorted(self._starts, record, side="right")) - 1
        place = record - int(self._starts[shard])
        index = self._shard_index(shard)
        return Location(
            self.folder / self.manifest.shards[shard].data.name,
            int(index.offsets[place]),
            int(index.lengths[place]),
            index.clip_ids[place],
        )

    def read(self, records: Sequence[int] | Int64[np.ndarray, " n"]) -> list[bytes]:
        """The serialised Clips of the given records, in their order, checksums verified.

        Raises:
          IndexError: there is no such record.
          SnapshotError: a file is missing, or a record is corrupt (names shard, offset and clip).
        """
        return list(self._threads.map(self._read_one, map(int, records)))

    def _read_one(self, record: int) -> bytes:
        location = self.locate(record)
        try:
            descriptor = os.open(location.shard, os.O_RDONLY)
            try:
                framed = os.pread(descriptor, location.length, location.offset)
            finally:
                os.close(descriptor)
            return tfrecord.unframe(framed)
        except OSError as error:
            raise SnapshotError(
                f"shard {location.shard} cannot be read: {error.strerror}; "
                "restore it or run svilm-pipelines build again"
            ) from error
        except tfrecord.CorruptRecordError as error:
            raise SnapshotError(
                f"shard {location.shard} is corrupt at offset {location.offset} "
                f"(clip {location.clip_id!r}): {error}; restore it or run svilm-pipelines "
                "build again"
            ) from error

    def _shard_index(self, shard: int) -> _ShardIndex:
        with self._index_lock:
            if shard not in self._indices:
                self._indices[shard] = _read_index(self.folder, self.manifest.shards[shard])
            return self._indices[shard]


def read_texts(snapshot: Snapshot, at_most: int) -> list[str]:
    """Captions and noun prompts to train a vocabulary on, from records spread over the snapshot.

    Args:
      snapshot: the snapshot.
      at_most: records to read. Each is read whole, frames included.
    """
    count = min(at_most, len(snapshot))
    records = np.arange(count) * len(snapshot) // max(count, 1)
    texts = []
    for some in np.array_split(records, -(-count // 256) or 1):
        for data in snapshot.read(some):
            clip = clip_pb2.Clip.FromString(data)
            texts.append(clip.caption)
            texts.extend(prompt for chunk in clip.noun_chunks for prompt in chunk.prompts)
    return texts


def _read_manifest(folder: pathlib.Path) -> manifest_pb2.Manifest:
    path = folder / contract.MANIFEST_NAME
    if not folder.is_dir():
        raise SnapshotError(
            f"there is no snapshot folder {folder}: give the folder that "
            "svilm-pipelines build wrote"
        )
    try:
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        # Before anything else is understood: another major version may mean other fields.
        contract.check_readable(str(values.get("schemaVersion", values.get("schema_version", ""))))
        manifest = json_format.ParseDict(
            values, manifest_pb2.Manifest(), ignore_unknown_fields=True
        )
        contract.check_manifest(manifest)
    except FileNotFoundError:
        raise SnapshotError(
            f"{folder} has no {contract.MANIFEST_NAME}: it is no snapshot, or a half-written one; "
            "run svilm-pipelines build again, it resumes"
        ) from None
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror}") from error
    except contract.ContractError as error:
        raise SnapshotError(f"{path}: {error}") from error
    except (ValueError, json_format.ParseError) as error:
        reason = str(error).splitlines()[0]
        raise SnapshotError(
            f"{path} is damaged ({reason}): run svilm-pipelines build again"
        ) from error
    return manifest


def _check_file(folder: pathlib.Path, entry: manifest_pb2.FileEntry) -> None:
    # A manifest may come from anywhere: its names must stay inside the folder.
    if pathlib.PurePath(entry.name).name != entry.name or not entry.name:
        raise SnapshotError(
            f"{folder}: the manifest names the file {entry.name!r}, which is not "
            "a plain file name: do not use this snapshot"
        )
    path = folder / entry.name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SnapshotError(
            f"{path} is listed in the manifest but cannot be read: {error.strerror}; restore it "
            "or run svilm-pipelines build again"
        ) from error
    if size != entry.bytes:
        raise SnapshotError(
            f"{path} has {size} bytes where the manifest says {entry.bytes}: restore it or run "
            "svilm-pipelines build again"
        )


def _read_index(folder: pathlib.Path, shard: manifest_pb2.ShardEntry) -> _ShardIndex:
    path = folder / shard.index.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"index {path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != shard.index.sha256:
        raise SnapshotError(
            f"index {path} is damaged: its sha256 is not the manifest's; restore it or run "
            "svilm-pipelines build again"
        )
    try:
        records: Sequence[manifest_pb2.RecordEntry] = manifest_pb2.ShardIndex.FromString(
            data
        ).records
    except message.DecodeError as error:
        raise SnapshotError(f"index {path} is not a ShardIndex: {error}") from error
    if len(records) != shard.records:
        raise SnapshotError(
            f"index {path} lists {len(records)} records where the manifest says {shard.records}: "
            "run svilm-pipelines build again"
        )
    return _ShardIndex(
        np.array([record.offset for record in records], np.int64),
        np.array([record.length for record in records], np.int64),
        [record.clip_id for record in records],
    )
