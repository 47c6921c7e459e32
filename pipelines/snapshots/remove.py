"""A new version of a snapshot without some videos; every shard that had none of them is kept.

A removed video's rows become rejects ("video_removed"), so that rows are still all accounted for.
Of the video only its id is kept, in the manifest: by that no later version takes it in again.
"""

import collections
import os
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

from pipelines.processes import pool
from pipelines.snapshots import plan_summary, records, run_lock, snapshot, takedown, verify
from pipelines.snapshots.records import Place
from pipelines.snapshots.takedown import Takedown
from pipelines.sources.clip_request import REMOVED, reject, row_order
from pipelines.storage import storage
from protos import contract
from protos.v1.manifest_pb2 import Counts, Manifest, Reject, ShardEntry, ShardSummary


class Removal(NamedTuple):
    """What a removal did."""

    records: int  # removed
    unknown: list[str]  # ids of which the snapshot had nothing


class _Job(NamedTuple):
    """A shard to carry over."""

    folder: str
    out: str
    shard: int
    video_ids: frozenset[str]  # to remove


class _Carried(NamedTuple):
    """What became of a shard."""

    entry: ShardEntry
    videos_sha256: str
    removed: int  # records
    reasons: collections.Counter[str]  # of its rejects now, less those before
    found: Set[str]  # the ids to remove of which it had something


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
    """Writes the new version into the folder `out`, which must be empty or of the same takedown.

    Raises:
      SnapshotError: a file is damaged or cannot be written, nothing is of these videos, or every
        record is.
      WorkerDiedError: a process was killed.
    """
    num_shards = len(manifest.shards)
    gone = Takedown(video_ids | takedown.of(folder, manifest))
    with run_lock.held(out):
        complete = _is_of(out, manifest, gone.video_ids, data_version)
        snapshot.clear_unfinished(out, num_shards, complete=complete)
        # All ids for each shard: other spellings of an id may lie in other shards.
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

        def planned() -> Iterator[Reject]:
            for one in plan_summary.rejects(folder):
                found.update(gone.named_by(one))
                kept = gone.hidden(gone.scrubbed(one))
                rejects.update({kept.reason: 1})
                rejects.subtract({one.reason: 1})
                yield kept

        plan = plan_summary.write(out, manifest.counts.rows, planned())
        if len(files) == len(manifest.annotations) and found.isdisjoint(video_ids):
            raise snapshot.SnapshotError(
                f"no record or reject is of these {len(video_ids):,} videos"
            )
        if removed == manifest.counts.records:
            raise snapshot.SnapshotError(f"every record is of these {len(video_ids):,} videos")
        version = Manifest()
        version.CopyFrom(manifest)
        version.data_version = data_version
        _keep(version.annotations, files)
        _keep(version.removed_videos, sorted(gone.video_ids))
        version.inputs_sha256 = snapshot.inputs_sha256(
            files, (carried[shard].videos_sha256 for shard in range(num_shards))
        )
        _keep(version.shards, [carried[shard].entry for shard in range(num_shards)])
        counts = manifest.counts
        version.counts.CopyFrom(
            Counts(
                rows=counts.rows,
                records=counts.records - removed,
                rejects={reason: count for reason, count in rejects.items() if count},
            )
        )
        version.plan.CopyFrom(plan)
        snapshot.write_manifest(out, version)
    return Removal(removed, sorted(video_ids - found))


def _is_of(out: str, manifest: Manifest, video_ids: Set[str], data_version: str) -> bool:
    """Whether a folder has what this very takedown wrote, before it was killed or repeated."""
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
    """The version after records went away, as readers cannot do without knowing.

    >>> next_major("1.4.2")
    '2.0.0'
    """
    return f"{int(data_version.partition('.')[0]) + 1}.0.0"


def _carry(job: _Job) -> _Carried:
    """Takes a shard over as it is, or writes it again without the removed videos."""
    manifest = verify.manifest_of(job.folder)
    stem = contract.shard_name(job.shard, len(manifest.shards))
    entry = manifest.shards[job.shard]
    summary = snapshot.read_json(os.path.join(job.folder, f"{stem}.json"), ShardSummary)
    gone = takedown.taken_down(job.video_ids)
    if not gone.touches(summary):
        for file in (entry.data, entry.index, entry.summary):
            snapshot.adopt(job.folder, file, job.out)
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


def _rewrite(job: _Job, stem: str, summary: ShardSummary, gone: Takedown) -> int:
    """Writes a shard's records without those to remove, and corrects its summary."""
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
    summary.fingerprint = ""  # no build makes this shard
    summary.records = writer.records
    summary.data.CopyFrom(writer.data)
    summary.index.CopyFrom(writer.index)
    _keep(summary.videos, [v for v in summary.videos if not gone.ids_of(v.video_id)])
    rejects.sort(key=lambda one: row_order(one.source_row))
    _keep(summary.rejects, list(gone.rejects(rejects)))
    return removed


def _keep(field, messages: Sequence) -> None:
    """Gives a repeated field other messages."""
    kept = list(messages)
    del field[:]
    field.extend(kept)
