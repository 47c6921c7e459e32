"""Consistency checks of a snapshot: every checksum, record, index entry and count."""

import collections
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from pipelines.processes import pool
from pipelines.snapshots import increments, plan_summary, records, snapshot, split
from pipelines.snapshots.increments import Increment
from pipelines.snapshots.snapshot import config_sha256, shard_of
from pipelines.storage import storage
from protos import contract, tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import (
    BuildConfig,
    FileEntry,
    Manifest,
    ShardEntry,
    ShardSummary,
)
from protos.video_id import video_key


def read_manifest(folder: str) -> Manifest:
    """Read the manifest of a complete snapshot whose version this reader supports.

    Raises:
      SnapshotError: the folder is no snapshot, or the snapshot is incomplete.
      ContractError: the snapshot has another major version, or its counts do not add up.
    """
    path = os.path.join(folder, contract.MANIFEST_NAME)
    try:
        names = storage.names(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise snapshot.SnapshotError(
            f"{folder!r} is not a folder: name one that `svilm-pipelines build` wrote"
        ) from None
    if contract.MANIFEST_NAME not in names:
        if any(name.startswith("shard-") for name in names):
            raise snapshot.SnapshotError(
                f"the snapshot in {folder!r} is incomplete (no {contract.MANIFEST_NAME}): "
                "run the same build again to resume it"
            )
        raise snapshot.SnapshotError(
            f"{folder!r} is not a snapshot (no {contract.MANIFEST_NAME}): build one with "
            "`svilm-pipelines build`"
        )
    manifest = snapshot.read_json(path, Manifest)
    contract.check_manifest(manifest)
    return manifest


@functools.lru_cache(maxsize=1)
def manifest_of(folder: str) -> Manifest:
    """Return `read_manifest`'s result, cached because each work item needs the large manifest."""
    return read_manifest(folder)


def faults(
    folder: str,
    manifest: Manifest,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Return all faults of a snapshot, one line each, or an empty list if it is sound.

    Args:
      folder: the snapshot's folder.
      manifest: the manifest that `read_manifest` returned for the folder.
      workers: number of processes, each of which checks one shard at a time.
      progress: called with the number of checked shards and the total number.

    Raises:
      WorkerDiedError: a worker process was killed.
    """
    shards = len(manifest.shards)
    found: dict[int, _ShardFound] = {}
    gone = frozenset(map(video_key, manifest.removed_videos))
    parts = increments.split(manifest)
    stems = contract.shard_names(manifest)
    jobs = [
        _Job(folder, part.first + number, stems[part.first + number], number, entry, config, gone)
        for part in parts
        for config in [part.manifest.config]
        for number, entry in enumerate(part.manifest.shards)
    ]
    for job, of_shard in pool.each(_check_shard, jobs, workers):
        found[job.shard] = of_shard
        progress(len(found), shards)

    plan_rows, rejects, lines = _check_plan(folder, manifest)
    for shard in range(shards):
        lines += found[shard].faults
        rejects.update(found[shard].rejects)
    lines += _check_hashes(manifest, parts, [found[shard].videos_sha256 for shard in range(shards)])
    rows = plan_rows + sum(of_shard.rows for of_shard in found.values())
    if rows != manifest.counts.rows:
        lines.append(
            f"plan and shards have {rows} rows instead of the manifest's {manifest.counts.rows}"
        )
    if dict(rejects) != dict(manifest.counts.rejects):
        lines.append(
            f"plan and shards have rejects {dict(sorted(rejects.items()))} instead of the "
            f"manifest's {dict(sorted(manifest.counts.rejects.items()))}"
        )
    if len(parts) > 1 and not any(of_shard.faults for of_shard in found.values()):
        lines += _repeated(folder, manifest)
    known = {contract.MANIFEST_NAME, contract.SIGNATURE_NAME, *increments.file_names(manifest)}
    known.add(snapshot.CROISSANT_NAME)
    for name in sorted(set(storage.names(folder)) - known):
        lines.append(f"{name}: not a file of this snapshot")
    return lines


class _ShardFound(NamedTuple):
    """The counts of a shard's files, and their faults."""

    rows: int
    rejects: collections.Counter[str]  # by reason
    faults: list[str]
    videos_sha256: str = ""  # empty if the summary is damaged


class _Job(NamedTuple):
    """A shard to check."""

    folder: str
    shard: int  # its number in the snapshot
    stem: str  # stem of its file names
    number: int  # its number in its increment
    entry: ShardEntry
    config: BuildConfig  # of its increment
    removed: frozenset[str]  # keys of videos that were taken down


def _check_plan(folder: str, manifest: Manifest) -> tuple[int, collections.Counter[str], list[str]]:
    """Return the number of rows that reached no shard, their rejects by reason, and the faults."""
    rows, rejects = 0, collections.Counter[str]()
    names = contract.plan_names(manifest)
    entries = [manifest.plan, *(one.plan for one in manifest.increments[1:])]
    for entry, name in zip(entries, names, strict=True):
        if wrong := _wrong_file(folder, entry, name):
            return 0, collections.Counter(), [wrong]
        try:
            rows += plan_summary.rows(folder, name)
            rejects.update(reject.reason for reject in plan_summary.rejects(folder, name))
        except snapshot.SnapshotError as error:
            return 0, collections.Counter(), [str(error)]
    if rows != manifest.counts.rows:
        fault = f"{names[0]}: has {rows} rows instead of the manifest's {manifest.counts.rows}"
        if len(names) > 1:
            fault = f"{names[0]} and {len(names) - 1} more have {fault.partition('has ')[2]}"
        return rejects.total(), rejects, [fault]
    return rejects.total(), rejects, []


def _check_shard(job: _Job) -> _ShardFound:
    stem = job.stem
    files = (
        (job.entry.data, "tfrecord"),
        (job.entry.index, "index"),
        (job.entry.summary, "json"),
    )
    wrong = [
        fault
        for file, suffix in files
        if (fault := _wrong_file(job.folder, file, f"{stem}.{suffix}"))
    ]
    if wrong:
        return _ShardFound(0, collections.Counter(), wrong)
    try:
        summary = snapshot.read_json(os.path.join(job.folder, f"{stem}.json"), ShardSummary)
        wrong = list(_shard_faults(job, stem, summary))
    except snapshot.SnapshotError as error:
        return _ShardFound(0, collections.Counter(), [str(error)])
    rejects = collections.Counter(reject.reason for reject in summary.rejects)
    return _ShardFound(summary.rows, rejects, wrong, snapshot.videos_sha256(summary))


def _repeated(folder: str, manifest: Manifest) -> list[str]:
    """Return a fault if increments have a clip twice: within one, shards and indices exclude it."""
    shards = range(len(manifest.shards))
    keys = np.concatenate([records.clip_keys(folder, manifest, shard) for shard in shards])
    values, counts = np.unique(keys, return_counts=True)
    seen: set[str] = set()
    for shard in shards if len(values) < len(keys) else ():
        twice = np.isin(records.clip_keys(folder, manifest, shard), values[counts > 1])
        entries = records.index(folder, manifest, shard)
        for number in np.flatnonzero(twice).tolist():
            clip_id = entries[number].clip_id
            if clip_id in seen:
                stem = contract.shard_name_of(manifest, shard)
                return [f"{stem}.index: {clip_id!r} is a record of an earlier increment, too"]
            seen.add(clip_id)
    return []


def _check_hashes(
    manifest: Manifest, parts: Sequence[Increment], videos: Sequence[str]
) -> Iterator[str]:
    """Yield a fault for each hash in the manifest that does not match its source."""
    if manifest.config_sha256 != config_sha256(manifest.config, manifest.versions):
        yield f"{contract.MANIFEST_NAME}: config_sha256 does not match its config and versions"
    if not all(videos):
        return
    of_parts = [
        snapshot.inputs_sha256(
            part.manifest.annotations, videos[part.first : part.first + len(part.manifest.shards)]
        )
        for part in parts
    ]
    stated = [part.manifest.inputs_sha256 for part in parts]
    whole = increments.inputs_sha256(stated) if len(parts) > 1 else of_parts[0]
    if of_parts != stated or manifest.inputs_sha256 != whole:
        yield (
            f"{contract.MANIFEST_NAME}: inputs_sha256 does not match its annotations and the "
            "shards' videos"
        )


def _wrong_file(folder: str, entry: FileEntry, name: str) -> str | None:
    if entry.name != name:  # The check also rejects manifests that name files elsewhere.
        return f"{name}: the manifest lists {entry.name!r} instead"
    return snapshot.fault(folder, entry)


def _shard_faults(job: _Job, stem: str, summary: ShardSummary) -> Iterator[str]:
    """Yield the faults within a shard whose files have the right checksums.

    Raises:
      SnapshotError: the index file is invalid.
    """
    entry = job.entry
    if summary.rows != summary.records + len(summary.rejects):
        yield (
            f"{stem}.json: {summary.rows} rows are not {summary.records} records + "
            f"{len(summary.rejects)} rejects"
        )
    if (summary.data, summary.index) != (entry.data, entry.index):
        yield f"{stem}.json: its data or index differs from the manifest's"
    index = snapshot.read_index(os.path.join(job.folder, f"{stem}.index")).records
    if not len(index) == entry.records == summary.records:
        yield (
            f"{stem}: the numbers of records differ: {len(index)} in the index, "
            f"{summary.records} in the summary, {entry.records} in the manifest"
        )
    offset, last_id = 0, ""
    with storage.open_to_read(os.path.join(job.folder, f"{stem}.tfrecord")) as file:
        for place in index:
            if place.offset != offset:
                yield (
                    f"{stem}.index: {place.clip_id!r} is at offset {place.offset} instead of "
                    f"{offset}"
                )
                return
            if place.clip_id <= last_id:
                yield f"{stem}.index: {place.clip_id!r} is after {last_id!r}, not in order"
            if not 0 < place.length <= entry.data.bytes - offset:
                yield f"{stem}.index: {place.clip_id!r} has an invalid length, {place.length} bytes"
                return
            framed = file.read(place.length)
            offset, last_id = offset + place.length, place.clip_id
            try:
                clip = records.parse(framed, place.clip_id, job.config)
                _check_shard_of(clip, job.number, job.config)
                if video_key(clip.video_id) in job.removed:
                    raise contract.ContractError("its video was taken down")
            except (tfrecord.CorruptRecordError, DecodeError, ValueError) as error:
                yield f"{stem}.tfrecord: record {place.clip_id!r}: {error}"
    if offset != entry.data.bytes:
        yield f"{stem}.index: ends at {offset} of {entry.data.bytes} bytes"


def _check_shard_of(clip: Clip, shard: int, config: BuildConfig) -> None:
    belongs = shard_of(clip.video_id, config.num_shards)
    if belongs != shard:
        raise contract.ContractError(f"video {clip.video_id!r} belongs to shard {belongs}")
    if config.HasField("split") and (part := split.part_of(clip.video_id, config.split)) != (
        config.split.part
    ):
        raise contract.ContractError(
            f"video {clip.video_id!r} belongs to {part}, not {config.split.part}"
        )
