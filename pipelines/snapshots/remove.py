"""Removal of videos from a snapshot: a new version that keeps every unaffected shard.

A removed video's rows become rejects ("video_removed"), so every row stays accounted for. The
manifest keeps only the video's id, which prevents later versions from including the video again.
"""

import collections
import os
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

from pipelines.processes import pool
from pipelines.snapshots import (
    increments,
    plan_summary,
    records,
    redaction,
    run_lock,
    snapshot,
    verify,
)
from pipelines.snapshots.records import Place
from pipelines.snapshots.redaction import Redaction
from pipelines.sources.clip_request import reject, row_order
from pipelines.sources.reject_reasons import REMOVED
from pipelines.storage import storage
from protos import contract
from protos.v1.manifest_pb2 import (
    Counts,
    FileEntry,
    Manifest,
    Reject,
    ShardEntry,
    ShardSummary,
)


class Removal(NamedTuple):
    """The result of a removal."""

    records: int  # number of removed records
    unknown: list[str]  # ids without any record or reject in the snapshot


class _Job(NamedTuple):
    """A shard to carry over."""

    folder: str
    out: str
    shard: int
    video_ids: frozenset[str]  # videos to remove


class _Carried(NamedTuple):
    """The result of carrying a shard over."""

    entry: ShardEntry
    videos_sha256: str
    removed: int  # number of removed records
    reasons: collections.Counter[str]  # change in the number of rejects by reason
    found: Set[str]  # ids to remove that the shard contained


def remove(
    folder: str,
    manifest: Manifest,
    video_ids: Set[str],
    out: str,
    data_version: str,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Removal:
    """Write the new version into the folder `out`, which is empty or left by the same removal.

    Raises:
      SnapshotError: the version is not later, a file is damaged or cannot be written, no record
        or reject belongs to these videos, or every record does.
      WorkerDiedError: a worker process was killed.
    """
    if not snapshot.is_later(data_version, manifest.data_version):
        raise snapshot.SnapshotError(
            f"--data-version {data_version} is not higher than {manifest.data_version}, the "
            f"version of {folder!r}: give a higher --data-version"
        )
    num_shards = len(manifest.shards)
    gone = Redaction(video_ids | redaction.removed_videos(folder, manifest))
    with run_lock.held(out):
        complete = _is_of(out, manifest, gone.video_ids, data_version)
        snapshot.clear_unfinished(out, increments.file_names(manifest), complete=complete)
        # Each shard gets all ids, because other spellings of an id may be in other shards.
        jobs = [_Job(folder, out, shard, gone.video_ids) for shard in range(num_shards)]
        carried: dict[int, _Carried] = {}
        for job, of_shard in pool.each(_carry, jobs, workers):
            carried[job.shard] = of_shard
            progress(len(carried), num_shards)
        removed = sum(of_shard.removed for of_shard in carried.values())
        found: set[str] = set().union(*(of_shard.found for of_shard in carried.values()))
        rejects = collections.Counter(dict(manifest.counts.rejects))
        for of_shard in carried.values():
            rejects.update(of_shard.reasons)
        files = gone.annotations(manifest.annotations)

        def planned(name: str) -> Iterator[Reject]:
            for one in plan_summary.rejects(folder, name):
                found.update(gone.named_by(one))
                kept = gone.hidden(gone.scrubbed(one))
                rejects.update({kept.reason: 1})
                rejects.subtract({one.reason: 1})
                yield kept

        names = contract.plan_names(manifest)
        rows = [manifest.counts.rows]
        if manifest.increments:
            rows = [plan_summary.rows(folder, name) for name in names]
        plans = [
            plan_summary.write(out, of_plan, planned(name), name)
            for of_plan, name in zip(rows, names, strict=True)
        ]
        if len(files) == len(manifest.annotations) and found.isdisjoint(video_ids):
            raise snapshot.SnapshotError(
                f"none of the {len(video_ids):,} videos is in {folder!r}: check the ids in --videos"
            )
        if removed == manifest.counts.records:
            raise snapshot.SnapshotError(
                f"every record belongs to the {len(video_ids):,} videos, so no snapshot would be "
                f"left: delete {folder!r} instead"
            )
        shards = [carried[shard] for shard in range(num_shards)]
        version = _new_manifest(manifest, data_version, gone, plans, shards)
        counts = Counts(
            rows=manifest.counts.rows,
            records=manifest.counts.records - removed,
            rejects={reason: count for reason, count in rejects.items() if count},
        )
        version.counts.CopyFrom(counts)
        snapshot.write_manifest(out, version)
    return Removal(removed, sorted(video_ids - found))


def _new_manifest(
    manifest: Manifest,
    data_version: str,
    gone: Redaction,
    plans: Sequence[FileEntry],
    shards: Sequence[_Carried],
) -> Manifest:
    """Return the manifest of the new version, still without counts."""
    parts = increments.split(manifest)
    for part, plan in zip(parts, plans, strict=True):
        own = part.manifest
        of_part = shards[part.first : part.first + len(own.shards)]
        _keep(own.annotations, gone.annotations(own.annotations))
        own.inputs_sha256 = snapshot.inputs_sha256(
            own.annotations, (of_shard.videos_sha256 for of_shard in of_part)
        )
        _keep(own.shards, [of_shard.entry for of_shard in of_part])
        own.plan.CopyFrom(plan)
    version = increments.joined(parts, data_version)
    _keep(version.removed_videos, sorted(gone.video_ids))
    return version


def _is_of(out: str, manifest: Manifest, video_ids: Set[str], data_version: str) -> bool:
    """Return whether a folder holds the finished output of this same removal."""
    path = os.path.join(out, contract.MANIFEST_NAME)
    if not storage.exists(path):
        return False
    there = snapshot.read_json(path, Manifest)
    return (
        there.data_version == data_version
        and there.config_sha256 == manifest.config_sha256
        and there.counts.rows == manifest.counts.rows
        and [*there.removed_videos] == sorted(video_ids)
    )


def next_major(data_version: str) -> str:
    """Return the next major version: removing records is a breaking change for readers.

    >>> next_major("1.4.2")
    '2.0.0'
    """
    return f"{int(data_version.partition('.')[0]) + 1}.0.0"


def _carry(job: _Job) -> _Carried:
    """Link or copy an unaffected shard, or rewrite a shard without the removed videos."""
    manifest = verify.manifest_of(job.folder)
    stem = contract.shard_name_of(manifest, job.shard)
    entry = manifest.shards[job.shard]
    summary = snapshot.read_json(
        os.path.join(job.folder, f"{stem}.json"), ShardSummary, entry.summary
    )
    gone = redaction.redaction_of(job.video_ids)
    if not gone.touches(summary):
        for file in (entry.data, entry.index, entry.summary):
            snapshot.link_or_copy(job.folder, file, job.out)
        return _Carried(
            entry, snapshot.videos_sha256(summary), 0, collections.Counter(), frozenset()
        )
    found = frozenset[str]().union(
        *(gone.ids_of(video.video_id) for video in summary.videos),
        *map(gone.named_by, summary.rejects),
    )
    before = collections.Counter(one.reason for one in summary.rejects)
    removed = _rewrite(job, stem, summary, gone)
    reasons = collections.Counter(one.reason for one in summary.rejects)
    reasons.subtract(before)
    data = snapshot.to_json(summary)
    return _Carried(
        ShardEntry(
            records=summary.records,
            data=summary.data,
            index=summary.index,
            summary=snapshot.write_file(job.out, f"{stem}.json", data),
        ),
        snapshot.videos_sha256(summary),
        removed,
        reasons,
        found,
    )


def _rewrite(job: _Job, stem: str, summary: ShardSummary, gone: Redaction) -> int:
    """Write a shard's remaining records, update its summary and return the number removed."""
    places = [Place(job.shard, number) for number in range(summary.records)]
    rejects: list[Reject] = list(summary.rejects)
    removed = 0
    with snapshot.ShardWriter(job.out, stem) as writer:
        for clip in records.read(job.folder, verify.manifest_of(job.folder), places):
            if gone.ids_of(clip.video_id):
                rejects.append(reject("remove", REMOVED, "taken down", source_row=clip.source_row))
                removed += 1
            else:
                writer.append(clip)
    summary.fingerprint = ""  # No build reproduces this shard, so none may resume from it.
    summary.records = writer.records
    summary.data.CopyFrom(writer.data)
    summary.index.CopyFrom(writer.index)
    _keep(summary.videos, [v for v in summary.videos if not gone.ids_of(v.video_id)])
    rejects.sort(key=lambda one: row_order(one.source_row))
    _keep(summary.rejects, list(gone.rejects(rejects)))
    return removed


def _keep(field, messages: Sequence) -> None:
    """Replace the messages of a repeated field."""
    kept = list(messages)
    del field[:]
    field.extend(kept)
