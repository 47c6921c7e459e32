"""Reader of a snapshot: its manifest at once, shards' indices on demand, records by offset.

Records are numbered consecutively: by shard, in the manifest's order, then by position in the
shard.
"""

import concurrent.futures
import hashlib
import itertools
import operator
import os
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from google.protobuf import message
from jaxtyping import Int64

from protos import contract, tfrecord
from protos.strict_json import parse_object
from protos.v1 import clip_pb2, manifest_pb2
from protos.video_id import video_key
from trainer.data import tags
from trainer.data.cache import cached
from trainer.data.folder import Folder, Part, open_folder
from trainer.errors import UserError

# Checksums are computed without Python's global lock.
_CHECK_THREADS = len(os.sched_getaffinity(0))
# An index of a thousand records has about 50 kB. A large snapshot's first batch needs all indices.
_INDICES_AT_ONCE = 64
# End of a clip's id, after its video's id: the span as annotated, and 8 digits of its caption's
# sha256.
_CLIP_ID_END = re.compile(r"_-?[0-9]+_-?[0-9]+_[0-9a-f]{8}$")


class SnapshotError(UserError, RuntimeError):
    """A missing, unfinished, unreadable or damaged snapshot; one line that names the file."""


class CorruptRecordError(SnapshotError):
    """A record that is present but has wrong bytes; its number is `record`."""

    def __init__(self, message: str, record: int) -> None:
        """Args: message: names shard, offset and clip; record: its number in the mixture."""
        super().__init__(message)
        self.record = record


class Location(NamedTuple):
    """Location of a record."""

    shard: str  # path of the file
    offset: int  # bytes
    length: int  # bytes, framing included
    clip_id: str


class Snapshot:
    """An open snapshot, safe to read from several threads."""

    def __init__(
        self, folder: Folder, manifest: manifest_pb2.Manifest, manifest_sha256: str
    ) -> None:
        """Initialize the snapshot; callers use `open`."""
        self.folder = folder.path
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256  # hex, of manifest.json: identifies the snapshot
        self._files = folder
        # Record number at which each shard starts, and the total at the end.
        self._starts = np.cumsum([0, *(shard.records for shard in manifest.shards)])
        # End offset of each record, by shard: 8 bytes per record, of the shards read so far.
        self._ends: dict[int, Int64[np.ndarray, " records"]] = {}
        # The lock lets one batch read indices at a time, so that later batches do not delay it.
        self._learning = threading.Lock()
        self._threads = concurrent.futures.ThreadPoolExecutor(_CHECK_THREADS, "check")

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Snapshot":
        """Read and check the manifest, without opening a shard.

        Args:
          folder: a folder on a disk, gs://bucket/folder or s3://bucket/folder; or CORPUS@TAG, a
            tagged version in the folder CORPUS. The snapshot's `folder` is then that version's.

        Raises:
          SnapshotError: `folder` holds no complete snapshot of a readable version, or a tag does
            not exist or its version is another one than was tagged.
          CacheError: the environment's cache for buckets (cache.py) cannot be used.
        """
        try:
            version = tags.resolve(folder)
        except tags.TagError as error:
            raise SnapshotError(str(error)) from None
        files = open_folder(version.folder)
        manifest, sha256 = _read_manifest(files)
        if version.manifest_sha256 not in {None, sha256}:
            raise SnapshotError(
                f"{os.fspath(folder)} is {files.path}, but its manifest has the sha256 "
                f"{sha256[:12]}…, not {version.manifest_sha256:.12}… as when it was tagged: "
                "restore the version, or move the tag"
            )
        _check_files(files, manifest)
        return cls(cached(files, manifest), manifest, sha256)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def locate(self, record: int) -> Location:
        """Return a record's location, and its clip's id.

        Raises:
          IndexError: the record number is out of range.
          SnapshotError: the shard's index is missing or damaged.
        """
        ((shard, place),) = self._places([record])
        entry = self.manifest.shards[shard]
        where = _parse_index(self.folder, entry, *self._read_indices([shard]))[place]
        path = f"{self.folder}/{entry.data.name}"
        return Location(path, where.offset, where.length, where.clip_id)

    def clip_ids(self, records: Sequence[int] | Int64[np.ndarray, " n"]) -> list[str]:
        """Return the clip ids of the given records, in their order, from the indices alone.

        Raises:
          IndexError: a record number is out of range.
          SnapshotError: a shard's index is missing or damaged.
        """
        places = self._places(records)
        ids: dict[tuple[int, int], str] = {}
        for shard, of_shard in itertools.groupby(sorted(set(places)), key=operator.itemgetter(0)):
            entry = self.manifest.shards[shard]
            index = _parse_index(self.folder, entry, *self._read_indices([shard]))
            ids |= {(shard, place): index[place].clip_id for _, place in of_shard}
        return [ids[place] for place in places]

    def videos(self) -> Iterator[tuple[str, str]]:
        """Yield each shard's videos: id, and the sha256 of the file, empty if unknown.

        They are the videos in the shards' summaries, except those with all clips rejected. For a
        shard without its summary, they come from the ids of its clips.

        Raises:
          SnapshotError: a summary or an index is damaged or cannot be read.
        """
        for _, videos in self._videos_by_shard():
            yield from videos

    def records_of(self, keys: Set[str]) -> dict[int, str]:
        """Return the records of some videos, with the video's id of each.

        It reads the summaries of all shards, and the indices of the shards with these videos.

        Args:
          keys: the `video_key` of each video.

        Raises:
          SnapshotError: a summary, an index or a record is damaged or cannot be read.
        """
        found = {}
        for shard, videos in self._videos_by_shard():
            if keys.isdisjoint(video_key(video_id) for video_id, _ in videos):
                continue
            for record, clip_id in enumerate(self._clip_ids(shard), int(self._starts[shard])):
                regular = _CLIP_ID_END.search(clip_id)
                video_id = _video_of_clip(clip_id) if regular else self.clip(record).video_id
                if video_key(video_id) in keys:
                    found[record] = video_id
        return found

    def _videos_by_shard(self) -> Iterator[tuple[int, list[tuple[str, str]]]]:
        try:
            there = self._files.sizes()
        except OSError as error:
            raise SnapshotError(f"{self.folder} cannot be listed: {error.strerror}") from error
        every = range(len(self.manifest.shards))
        told = [shard for shard in every if self.manifest.shards[shard].summary.name in there]
        for first in range(0, len(told), _INDICES_AT_ONCE):
            some = told[first : first + _INDICES_AT_ONCE]
            entries = [self.manifest.shards[shard].summary for shard in some]
            for shard, entry, data in zip(some, entries, self._read_whole(entries), strict=True):
                videos, rejected = _videos_of_summary(self.folder, entry, data)
                # Few shards have rejects, so few indices are read.
                gone = rejected - self._may_be_kept(shard, rejected) if rejected else rejected
                yield shard, [video for video in videos if video[0] not in gone]
        for shard in sorted(set(every) - set(told)):
            video_ids = dict.fromkeys(map(_video_of_clip, self._clip_ids(shard)))
            yield shard, [(video_id, "") for video_id in video_ids]

    def _clip_ids(self, shard: int) -> list[str]:
        entry = self.manifest.shards[shard]
        index = _parse_index(self.folder, entry, *self._read_indices([shard]))
        return [record.clip_id for record in index]

    def _may_be_kept(self, shard: int, videos: set[str]) -> set[str]:
        """Return the videos of which a shard has clips; all of them, if a clip id is irregular."""
        clip_ids = self._clip_ids(shard)
        if not all(map(_CLIP_ID_END.search, clip_ids)):
            return videos
        return videos & set(map(_video_of_clip, clip_ids))

    def read(self, records: Sequence[int] | Int64[np.ndarray, " n"]) -> list[bytes]:
        """Return the serialised Clips of the given records, in their order, checksums verified.

        Raises:
          IndexError: a record number is out of range.
          CorruptRecordError: a record is corrupt; names shard, offset and clip.
          SnapshotError: a file is missing or cannot be read.
        """
        places = self._places(records)
        self._learn_ends({shard for shard, _ in places})
        parts = []
        for shard, place in places:
            ends = self._ends[shard]
            start = int(ends[place - 1]) if place else 0
            name = self.manifest.shards[shard].data.name
            parts.append(Part(name, start, int(ends[place]) - start))
        try:
            framed = self._files.read_parts(parts)
        except OSError as error:
            raise SnapshotError(
                f"shard {error.filename} cannot be read: {error.strerror}; "
                "restore it or run svilm-pipelines build again"
            ) from error
        return list(self._threads.map(self._unframe, framed, map(int, records)))

    def clip(self, record: int) -> clip_pb2.Clip:
        """Read and parse one record.

        Raises:
          IndexError: the record number is out of range.
          SnapshotError: the record or its shard's index is missing or damaged.
        """
        return parse_clip(self, record, *self.read([record]))

    def _places(self, records: Sequence[int] | Int64[np.ndarray, " n"]) -> list[tuple[int, int]]:
        """Return each record's shard, and its position in the shard."""
        numbers = np.asarray(records, np.int64)
        beyond = numbers[(numbers < 0) | (numbers >= len(self))]
        if beyond.size:
            raise IndexError(
                f"record {beyond[0]} of {self.folder} does not exist: it has {len(self)} records"
            )
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        places = numbers - self._starts[shards]
        return list(zip(shards.tolist(), places.tolist(), strict=True))

    def _unframe(self, framed: bytes, record: int) -> bytes:
        try:
            return tfrecord.unframe(framed)
        except tfrecord.CorruptRecordError as error:
            where = self.locate(record)
            raise CorruptRecordError(
                f"shard {where.shard} is corrupt at offset {where.offset} "
                f"(clip {where.clip_id!r}): {error}; restore it or run svilm-pipelines "
                "build again",
                record,
            ) from error

    def _learn_ends(self, shards: set[int]) -> None:
        """Read the indices of those shards that are not loaded yet."""
        if shards <= self._ends.keys():
            return
        with self._learning:
            wanted = sorted(shards - self._ends.keys())
            for first in range(0, len(wanted), _INDICES_AT_ONCE):
                some = wanted[first : first + _INDICES_AT_ONCE]
                ends = self._threads.map(self._ends_of, some, self._read_indices(some))
                self._ends.update(zip(some, ends, strict=True))

    def _ends_of(self, shard: int, index: bytes) -> Int64[np.ndarray, " records"]:
        # Frames are contiguous, so their lengths suffice. Iterating over a million entries in
        # Python takes 0.2 s per field, and ids are needed only in messages.
        entry = self.manifest.shards[shard]
        records = _parse_index(self.folder, entry, index)
        ends = np.cumsum(np.fromiter((record.length for record in records), np.int64, len(records)))
        lengths = np.diff(ends, prepend=0)
        if (lengths <= 0).any() or (ends < 0).any() or ends[-1] != entry.data.bytes:
            raise SnapshotError(
                f"index {self.folder}/{entry.index.name} covers {ends[-1]} of the "
                f"{entry.data.bytes} bytes of its shard: run svilm-pipelines build again"
            )
        return ends

    def _read_indices(self, shards: Sequence[int]) -> list[bytes]:
        return self._read_whole([self.manifest.shards[shard].index for shard in shards])

    def _read_whole(self, entries: Sequence[manifest_pb2.FileEntry]) -> list[bytes]:
        try:
            return self._files.read_parts([Part(entry.name, 0, entry.bytes) for entry in entries])
        except OSError as error:
            raise SnapshotError(
                f"index {error.filename} cannot be read: {error.strerror}"
            ) from error


@runtime_checkable
class Readable(Protocol):
    """Records readable by number: those of a snapshot or of a mixture."""

    def __len__(self) -> int: ...

    def locate(self, record: int) -> Location:
        """Locate a record, as `Snapshot.locate` does."""
        ...

    def read(self, records: Int64[np.ndarray, " n"]) -> list[bytes]:
        """Read records, as `Snapshot.read` does."""
        ...


def parse_clip(records: Readable, number: int, data: bytes) -> clip_pb2.Clip:
    """Parse a record that was read.

    Raises:
      CorruptRecordError: the bytes are not a Clip.
    """
    try:
        return clip_pb2.Clip.FromString(data)
    except message.DecodeError as error:
        where = records.locate(number)
        raise CorruptRecordError(
            f"shard {where.shard}, offset {where.offset}: clip {where.clip_id!r} is not a valid "
            f"record ({error}): run svilm-pipelines verify, then build again",
            number,
        ) from None


def _read_manifest(folder: Folder) -> tuple[manifest_pb2.Manifest, str]:
    """Return the manifest, and the sha256 of its file."""
    path = f"{folder.path}/{contract.MANIFEST_NAME}"
    try:
        data = folder.read(contract.MANIFEST_NAME)
        values = parse_object(data)
        # The version is checked before the rest: another major version may have other fields.
        contract.check_readable(str(values.get("schemaVersion", values.get("schema_version", ""))))
        manifest = contract.from_values(values, manifest_pb2.Manifest)
        contract.check_manifest(manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SnapshotError(_why_no_manifest(folder)) from error
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror}") from error
    except contract.ContractError as error:
        raise SnapshotError(f"{path}: {error}") from error
    except ValueError as error:
        raise SnapshotError(
            f"{path} is damaged ({error}): run svilm-pipelines build again"
        ) from error
    return manifest, hashlib.sha256(data).hexdigest()


def _why_no_manifest(folder: Folder) -> str:
    try:
        there = bool(folder.sizes()) or os.path.isdir(folder.path)  # a bucket has no empty folders
    except OSError:
        there = False
    if not there:
        return (
            f"snapshot folder {folder.path} does not exist: give the output of svilm-pipelines "
            "build"
        )
    return (
        f"{folder.path} has no {contract.MANIFEST_NAME}: it is not a snapshot, or is incomplete; "
        "run svilm-pipelines build again, which resumes it"
    )


def _check_files(folder: Folder, manifest: manifest_pb2.Manifest) -> None:
    """Check that all shards and indices exist and have the manifest's sizes."""
    try:
        sizes = folder.sizes()
    except OSError as error:
        raise SnapshotError(f"{folder.path} cannot be listed: {error.strerror}") from error
    for shard in manifest.shards:
        for entry in (shard.data, shard.index):
            # A manifest is untrusted input: its names must stay inside the folder.
            if pathlib.PurePath(entry.name).name != entry.name or not entry.name:
                raise SnapshotError(
                    f"{folder.path}: the manifest lists {entry.name!r}, which is not a plain file "
                    "name: do not use this snapshot"
                )
            if entry.name not in sizes:
                raise SnapshotError(
                    f"{folder.path}/{entry.name} is missing, but the manifest lists it: restore "
                    "it or run svilm-pipelines build again"
                )
            if sizes[entry.name] != entry.bytes:
                raise SnapshotError(
                    f"{folder.path}/{entry.name} has {sizes[entry.name]} bytes, but the manifest "
                    f"lists {entry.bytes}: restore it or run svilm-pipelines build again"
                )


def _videos_of_summary(
    folder: str, entry: manifest_pb2.FileEntry, data: bytes
) -> tuple[list[tuple[str, str]], set[str]]:
    """Return a summary's videos, id and sha256, and the ids of those with rejected rows."""
    # protobuf's JSON parser would take 50 times as long for a million videos.
    try:
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ValueError("its sha256 differs from the manifest's")
        values = parse_object(data)
        videos = [
            (str(video["video_id"]), str(video.get("sha256", "")))
            for video in values.get("videos", ())
        ]
        rejected = {str(reject.get("video_id", "")) for reject in values.get("rejects", ())}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SnapshotError(
            f"summary {folder}/{entry.name} is damaged ({error}): restore it or run "
            "svilm-pipelines build again"
        ) from error
    return videos, rejected.intersection(video_id for video_id, _ in videos)


def _video_of_clip(clip_id: str) -> str:
    """Return the video's id, which begins the clip's id.

    >>> _video_of_clip("%28HQ%29_climb_1_0_10000000_5b41c1ab")
    '(HQ)_climb_1'
    """
    return urllib.parse.unquote(_CLIP_ID_END.sub("", clip_id))


def _parse_index(
    folder: str, shard: manifest_pb2.ShardEntry, data: bytes
) -> Sequence[manifest_pb2.RecordEntry]:
    path = f"{folder}/{shard.index.name}"
    if hashlib.sha256(data).hexdigest() != shard.index.sha256:
        raise SnapshotError(
            f"index {path} is damaged: its sha256 differs from the manifest's; restore it or run "
            "svilm-pipelines build again"
        )
    try:
        records = manifest_pb2.ShardIndex.FromString(data).records
    except message.DecodeError as error:
        raise SnapshotError(f"index {path} is not a ShardIndex: {error}") from error
    if len(records) != shard.records:
        raise SnapshotError(
            f"index {path} lists {len(records)} records, but the manifest {shard.records}: run "
            "svilm-pipelines build again"
        )
    return records
