"""Checks a snapshot against itself: every checksum, record, index entry and count."""

import collections
import os
from collections.abc import Callable, Iterator

from google.protobuf.message import DecodeError

from pipelines import jpeg, snapshot
from pipelines.plan import shard_of
from protos import contract, tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import FileEntry, Manifest, PlanSummary, ShardEntry, ShardSummary


def read_manifest(folder: str) -> Manifest:
    """Reads the manifest of a complete snapshot of a version this reader knows.

    Raises:
      SnapshotError: the folder is no snapshot, or one that is not complete.
      ContractError: the snapshot has another major version, or its counts do not add up.
    """
    path = os.path.join(folder, contract.MANIFEST_NAME)
    if not os.path.isdir(folder):
        raise snapshot.SnapshotError(f"{folder!r} is no folder")
    if not os.path.exists(path):
        if any(name.startswith("shard-") for name in os.listdir(folder)):
            raise snapshot.SnapshotError(
                f"the snapshot in {folder!r} is not complete (no {contract.MANIFEST_NAME}): "
                "run the same build again, it goes on where it ended"
            )
        raise snapshot.SnapshotError(
            f"{folder!r} is no snapshot (no {contract.MANIFEST_NAME}): make one with "
            "`svilm-pipelines build`"
        )
    manifest = snapshot.read_json(path, Manifest)
    contract.check_manifest(manifest)
    return manifest


def faults(
    folder: str, manifest: Manifest, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[str]:
    """Everything that is wrong with a snapshot, a line each; nothing if it is sound."""
    known = {contract.MANIFEST_NAME, contract.PLAN_NAME}
    rejects: collections.Counter[str] = collections.Counter()
    rows = 0
    if wrong := _wrong_file(folder, manifest.plan, contract.PLAN_NAME):
        yield wrong
    else:
        plan = snapshot.read_json(os.path.join(folder, contract.PLAN_NAME), PlanSummary)
        rejects.update(reject.reason for reject in plan.rejects)
        rows += len(plan.rejects)
        if plan.rows != manifest.counts.rows:
            yield f"{contract.PLAN_NAME}: {plan.rows} rows, the manifest has {manifest.counts.rows}"

    for shard, entry in enumerate(manifest.shards):
        stem = contract.shard_name(shard, len(manifest.shards))
        known |= {f"{stem}.{suffix}" for suffix in ("tfrecord", "index", "json")}
        wrong = [
            fault
            for file, suffix in (
                (entry.data, "tfrecord"),
                (entry.index, "index"),
                (entry.summary, "json"),
            )
            if (fault := _wrong_file(folder, file, f"{stem}.{suffix}"))
        ]
        if wrong:
            yield from wrong
        else:
            summary = snapshot.read_json(os.path.join(folder, f"{stem}.json"), ShardSummary)
            rejects.update(reject.reason for reject in summary.rejects)
            rows += summary.rows
            yield from _shard_faults(folder, stem, shard, entry, summary, manifest)
        progress(shard + 1, len(manifest.shards))

    if rows != manifest.counts.rows:
        yield f"the plan and the shards have {rows} rows, the manifest has {manifest.counts.rows}"
    if dict(rejects) != dict(manifest.counts.rejects):
        yield (
            f"the plan and the shards have rejects {dict(sorted(rejects.items()))}, "
            f"the manifest has {dict(sorted(manifest.counts.rejects.items()))}"
        )
    for name in sorted(set(os.listdir(folder)) - known):
        yield f"{name}: not a file of this snapshot"


def _wrong_file(folder: str, entry: FileEntry, name: str) -> str | None:
    if entry.name != name:  # also keeps a manifest from naming files elsewhere
        return f"{name}: the manifest names {entry.name!r} in its place"
    return snapshot.fault(folder, entry)


def _shard_faults(
    folder: str,
    stem: str,
    shard: int,
    entry: ShardEntry,
    summary: ShardSummary,
    manifest: Manifest,
) -> Iterator[str]:
    """The faults inside a shard whose files have the right checksums."""
    if summary.rows != summary.records + len(summary.rejects):
        yield (
            f"{stem}.json: {summary.rows} rows, but {summary.records} records and "
            f"{len(summary.rejects)} rejects"
        )
    if (summary.data, summary.index) != (entry.data, entry.index):
        yield f"{stem}.json: other data or index than the manifest's"
    try:
        index = snapshot.read_index(os.path.join(folder, f"{stem}.index")).records
    except snapshot.SnapshotError as error:
        yield str(error)
        return
    if not len(index) == entry.records == summary.records:
        yield (
            f"{stem}: {len(index)} index entries, {summary.records} records in its summary, "
            f"{entry.records} in the manifest"
        )
    offset, last_id = 0, ""
    with open(os.path.join(folder, f"{stem}.tfrecord"), "rb") as file:
        for place in index:
            if place.offset != offset:
                yield f"{stem}.index: {place.clip_id!r} at {place.offset}, should be {offset}"
                return
            if place.clip_id <= last_id:
                yield f"{stem}.index: {place.clip_id!r} after {last_id!r}, not in order"
            framed = file.read(place.length)
            offset, last_id = offset + place.length, place.clip_id
            try:
                clip = Clip.FromString(tfrecord.unframe(framed))
                _check_clip(clip, place.clip_id, shard, manifest)
            except (tfrecord.CorruptRecordError, DecodeError, ValueError) as error:
                yield f"{stem}.tfrecord: record {place.clip_id!r}: {error}"
    if offset != entry.data.bytes:
        yield f"{stem}.index: ends at {offset} of {entry.data.bytes} bytes"


def _check_clip(clip: Clip, clip_id: str, shard: int, manifest: Manifest) -> None:
    if clip.clip_id != clip_id:
        raise contract.ContractError(f"is {clip.clip_id!r}")
    contract.check_clip(clip, manifest.config)
    belongs = shard_of(clip.video_id, len(manifest.shards))
    if belongs != shard:
        raise contract.ContractError(f"video {clip.video_id!r} belongs into shard {belongs}")
    for i, frame in enumerate(clip.frames):
        if jpeg.size(frame) != (clip.height, clip.width):
            raise contract.ContractError(f"frame {i} is {jpeg.size(frame)}, not as recorded")
