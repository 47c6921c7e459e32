"""The contents of a finished snapshot: records by place, by id or evenly spaced, and rejects."""

import bisect
import collections
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from pipelines.decoding import frame_codec
from pipelines.snapshots import plan_summary, snapshot
from pipelines.storage import storage
from protos import contract, tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import (
    BuildConfig,
    Counts,
    Manifest,
    RecordEntry,
    Reject,
    ShardSummary,
)

_AT_ONCE = 16  # records per read request


class Place(NamedTuple):
    """A record's position: its shard, and its number in the shard, both from 0."""

    shard: int
    number: int

    def __str__(self) -> str:
        """Return the place in the form that `find` reads."""
        return f"{self.shard}:{self.number}"


def evenly_spaced(manifest: Manifest, count: int) -> list[Place]:
    """Return up to `count` evenly spaced places over all records, in order.

    Videos are assigned to shards by hash, so this sample is as good as a random one.
    """
    starts = list(itertools.accumulate((entry.records for entry in manifest.shards), initial=0))
    total = starts[-1]
    count = min(count, total)
    places = []
    for i in range(count):
        record = (2 * i + 1) * total // (2 * count)
        shard = bisect.bisect_right(starts, record) - 1
        places.append(Place(shard, record - starts[shard]))
    return places


def find(folder: str, manifest: Manifest, names: Sequence[str]) -> list[Place]:
    """Return the places of records named by "<shard>:<number>" or by clip_id.

    Raises:
      SnapshotError: a record does not exist, or an index is damaged.
    """
    places: dict[str, Place] = {}
    for name in names:
        if re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", name):
            places[name] = _checked(folder, manifest, Place(*map(int, name.split(":"))))
    ids = [name for name in names if name not in places]
    for shard in range(len(manifest.shards)) if ids else ():
        entries = index(folder, manifest, shard)
        for clip_id in ids:
            number = bisect.bisect_left(entries, clip_id, key=lambda entry: entry.clip_id)
            if number < len(entries) and entries[number].clip_id == clip_id:
                places[clip_id] = Place(shard, number)
    for name in names:
        if name not in places:
            raise snapshot.SnapshotError(
                f"{folder!r} has no record {name!r} among {manifest.counts.records:,}: give a "
                "clip_id, or a shard and a number such as 0:0"
            )
    return [places[name] for name in names]


def read(folder: str, manifest: Manifest, places: Iterable[Place]) -> Iterator[Clip]:
    """Yield the records at these places, in the given order.

    A shard's index is read once for each run of consecutive places in that shard.

    Raises:
      SnapshotError: a record or an index is damaged.
    """
    for shard, group in itertools.groupby(places, key=lambda place: place.shard):
        entries = index(folder, manifest, shard)
        stem = contract.shard_name_of(manifest, shard)
        path = os.path.join(folder, f"{stem}.tfrecord")
        while some := [entries[place.number] for place in itertools.islice(group, _AT_ONCE)]:
            ranges = [(entry.offset, entry.offset + entry.length) for entry in some]
            for entry, framed in zip(some, storage.read_ranges(path, ranges), strict=True):
                try:
                    yield parse(framed, entry.clip_id, manifest.config)
                except (tfrecord.CorruptRecordError, DecodeError, ValueError) as error:
                    raise snapshot.SnapshotError(
                        f"{stem}.tfrecord: record {entry.clip_id!r} is damaged ({error}): "
                        f"{snapshot.LIST_FAULTS}"
                    ) from None


def parse(framed: bytes, clip_id: str, config: BuildConfig) -> Clip:
    """Parse a record, and check it against its index entry and the snapshot's configuration.

    Args:
      framed: the record with its TFRecord framing.
      clip_id: the id in the index.
      config: the configuration in the manifest.

    Raises:
      CorruptRecordError: the record's checksums do not match.
      DecodeError: the record is not a Clip.
      ValueError: the record is another clip, or violates the contract.
    """
    clip = Clip.FromString(tfrecord.unframe(framed))
    if clip.clip_id != clip_id:
        raise contract.ContractError(f"its clip_id is {clip.clip_id!r}")
    contract.check_clip(clip, config)
    frame_codec.check(clip)
    return clip


def summaries(folder: str, manifest: Manifest) -> Iterator[ShardSummary]:
    """Yield the summary of each shard, in order.

    Raises:
      SnapshotError: a summary is missing, damaged, or of another version of the snapshot.
    """
    for stem, entry in zip(contract.shard_names(manifest), manifest.shards, strict=True):
        path = os.path.join(folder, f"{stem}.json")
        yield snapshot.read_json(path, ShardSummary, entry.summary)


def shard_summaries(folder: str, stems: Iterable[str]) -> Iterator[ShardSummary]:
    """Yield the summary of each shard, in order, without reading a manifest.

    Args:
      folder: the folder of the shards.
      stems: the stem of each shard's file names.

    Raises:
      SnapshotError: a summary is missing or damaged.
    """
    for stem in stems:
        yield snapshot.read_json(os.path.join(folder, f"{stem}.json"), ShardSummary)


def rejects(folder: str, manifest: Manifest) -> Iterator[Reject]:
    """Yield every reject: first those of planning, then those of each shard.

    Raises:
      SnapshotError: the plan or a summary is missing or damaged.
    """
    for name in contract.plan_names(manifest):
        yield from plan_summary.rejects(folder, name)
    for summary in summaries(folder, manifest):
        yield from summary.rejects


def counts(folder: str, stems: Iterable[str], plan: str) -> Counts:
    """Return the counts of rows, records and rejects by reason, without reading a manifest.

    A build or append that produced no record has no manifest.

    Args:
      folder: the folder of the shards.
      stems: the stem of each shard's file names.
      plan: name of the file of the rejects of planning.

    Raises:
      SnapshotError: the plan or a summary is missing or damaged.
    """
    reasons = collections.Counter(reject.reason for reject in plan_summary.rejects(folder, plan))
    made = 0
    for summary in shard_summaries(folder, stems):
        reasons.update(reject.reason for reject in summary.rejects)
        made += summary.records
    return Counts(rows=plan_summary.rows(folder, plan), records=made, rejects=reasons)


def index(folder: str, manifest: Manifest, shard: int) -> Sequence[RecordEntry]:
    """Return the index entries of a shard's records, in order of clip_id.

    Raises:
      SnapshotError: the index is missing or damaged, or belongs to other records.
    """
    stem, expected = contract.shard_name_of(manifest, shard), manifest.shards[shard]
    path = os.path.join(folder, f"{stem}.index")
    entries = snapshot.read_index(path, expected.index).records
    if len(entries) != expected.records:
        raise snapshot.SnapshotError(
            f"{stem}.index has {len(entries)} records, but the manifest has "
            f"{expected.records}: {snapshot.LIST_FAULTS}"
        )
    # Records are contiguous and sorted by id, so every entry's offset can be checked.
    offset, last_id = 0, ""
    for entry in entries:
        if entry.offset != offset or entry.length <= 0 or entry.clip_id <= last_id:
            raise snapshot.SnapshotError(
                f"{stem}.index: {entry.clip_id!r} at offset {entry.offset}, {entry.length} bytes "
                f"long, does not follow {last_id!r}, which ends at {offset}: {snapshot.LIST_FAULTS}"
            )
        offset, last_id = offset + entry.length, entry.clip_id
    if offset != expected.data.bytes:
        raise snapshot.SnapshotError(
            f"{stem}.index ends at {offset} of {expected.data.bytes} bytes: {snapshot.LIST_FAULTS}"
        )
    return entries


def clip_key(clip_id: str) -> int:
    """Return 64 bits of a hash of a clip's id, by which sets of many ids are compared."""
    return int.from_bytes(hashlib.blake2b(clip_id.encode(), digest_size=8).digest())


def clip_keys(folder: str, manifest: Manifest, shard: int) -> np.ndarray:
    """Return the `clip_key` of each of a shard's records in their order, uint64 [records].

    Raises:
      SnapshotError: the index is missing or damaged, or belongs to other records.
    """
    entries = index(folder, manifest, shard)
    return np.array([clip_key(entry.clip_id) for entry in entries], np.uint64)


def _checked(folder: str, manifest: Manifest, place: Place) -> Place:
    if place.shard >= len(manifest.shards):
        raise snapshot.SnapshotError(
            f"{folder!r} has no record {str(place)!r}: give a shard from 0 to "
            f"{len(manifest.shards) - 1}"
        )
    records = manifest.shards[place.shard].records
    if place.number >= records:
        raise snapshot.SnapshotError(
            f"{folder!r} has no record {str(place)!r}: shard {place.shard} has {records:,} records"
        )
    return place
