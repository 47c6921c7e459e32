"""A new version of a snapshot without some videos; every shard that had none of them is kept.

A removed video's rows become rejects ("video_removed"), so that rows are still all accounted for
and no later `--retry-rejects` brings the video back.
"""

import collections
import os
import re
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

from pipelines import plan_summary, processes, records, run_lock, snapshot, verify
from pipelines.clip_request import REMOVED, reject, row_order
from pipelines.plan import shard_of
from pipelines.records import Place
from protos import contract
from protos.v1.manifest_pb2 import Counts, Manifest, Reject, ShardEntry, ShardSummary


class _Job(NamedTuple):
    """A shard to carry over."""

    folder: str
    out: str
    shard: int
    video_ids: Set[str]  # to remove: those of this shard


class _Carried(NamedTuple):
    """What became of a shard."""

    entry: ShardEntry
    videos_sha256: str
    removed: int  # records


def remove(
    folder: str,
    manifest: Manifest,
    video_ids: Set[str],
    out: str,
    data_version: str,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes the new version into the folder `out`, which must be empty.

    Returns:
      How many records were removed.

    Raises:
      SnapshotError: a file is damaged or cannot be written, no record is of these videos, or
        every one is.
      WorkerDiedError: a process was killed.
    """
    num_shards = len(manifest.shards)
    by_shard: dict[int, set[str]] = collections.defaultdict(set)
    for video_id in video_ids:
        by_shard[shard_of(video_id, num_shards)].add(video_id)
    with run_lock.held(out):
        snapshot.clear_unfinished(out, num_shards)
        jobs = [_Job(folder, out, shard, frozenset(by_shard[shard])) for shard in range(num_shards)]
        carried: dict[int, _Carried] = {}
        for job, of_shard in processes.each(_carry, jobs, workers):
            carried[job.shard] = of_shard
            progress(len(carried), num_shards)
        removed = sum(of_shard.removed for of_shard in carried.values())
        if removed in (0, manifest.counts.records):
            which = "no record is" if removed == 0 else "every record is"
            raise snapshot.SnapshotError(f"{which} of these {len(video_ids):,} videos")
        version = Manifest()
        version.CopyFrom(manifest)
        version.data_version = data_version
        version.inputs_sha256 = snapshot.inputs_sha256(
            manifest.annotations, (carried[shard].videos_sha256 for shard in range(num_shards))
        )
        del version.shards[:]
        version.shards.extend(carried[shard].entry for shard in range(num_shards))
        rejects = collections.Counter(manifest.counts.rejects)
        rejects[REMOVED] += removed
        counts = manifest.counts
        version.counts.CopyFrom(
            Counts(rows=counts.rows, records=counts.records - removed, rejects=rejects)
        )
        plan = plan_summary.write(out, counts.rows, _without_rows(folder, video_ids))
        version.plan.CopyFrom(plan)
        snapshot.write_manifest(out, version)
    return removed


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
    if not any(video.video_id in job.video_ids for video in summary.videos):
        for file in (entry.data, entry.index, entry.summary):
            snapshot.adopt(job.folder, file, job.out)
        return _Carried(entry, snapshot.videos_sha256(summary), 0)
    removed = _rewrite(job, stem, summary)
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
    )


def _rewrite(job: _Job, stem: str, summary: ShardSummary) -> int:
    """Writes a shard's records without those to remove, and corrects its summary."""
    places = [Place(job.shard, number) for number in range(summary.records)]
    gone = []
    with snapshot.ShardWriter(job.out, stem) as writer:
        for clip in records.read(job.folder, verify.manifest_of(job.folder), places):
            if clip.video_id in job.video_ids:
                row, video_id = clip.source_row, clip.video_id
                gone.append(
                    reject("remove", REMOVED, "taken down", source_row=row, video_id=video_id)
                )
            else:
                writer.append(clip)
    summary.fingerprint = ""  # no build makes this shard
    summary.records = writer.records
    summary.data.CopyFrom(writer.data)
    summary.index.CopyFrom(writer.index)
    _keep(summary.videos, [v for v in summary.videos if v.video_id not in job.video_ids])
    _keep(summary.rejects, sorted([*summary.rejects, *gone], key=lambda r: row_order(r.source_row)))
    return len(gone)


def _without_rows(folder: str, video_ids: Set[str]) -> Iterator[Reject]:
    """The plan's rejects without the text of rows that name a removed video."""
    for one in plan_summary.rejects(folder):
        if not video_ids.isdisjoint(re.findall(r"[\w-]+", one.row)):
            one.row = ""
        yield one


def _keep(field, messages: Sequence) -> None:
    """Gives a repeated field other messages."""
    kept = list(messages)
    del field[:]
    field.extend(kept)
