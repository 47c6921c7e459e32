"""The increments that a build leaves as they are: those of the version to which it appends.

An append writes the shards of one new increment, and a retry those of one that failed in part. All
other files come from the earlier version, linked or copied.
"""

import collections
import concurrent.futures
import functools
from collections.abc import Sequence

import numpy as np

from pipelines.planning.plan import Plan
from pipelines.snapshots import increments, records, snapshot, verify
from pipelines.snapshots.increments import Increment
from pipelines.snapshots.snapshot import SnapshotError, shard_of
from pipelines.sources.clip_request import ClipRequest
from protos import contract
from protos.v1.manifest_pb2 import Counts, Manifest

_AT_ONCE = 16  # files or requests at once; they mostly wait


def present(plan: Plan, requests: Sequence[ClipRequest]) -> dict[str, str]:
    """Return the clips that another increment has, with the data version of each.

    Only the shards in which the requests' videos can be are searched, by their indices.

    Args:
      plan: the plan of an append, or of a retry of one increment.
      requests: rows of one shard.

    Raises:
      SnapshotError: an index of the earlier version is missing or damaged.
    """
    others = {
        i: part for i, part in enumerate(_parts(plan.base, plan.base_sha256)) if i != plan.increment
    }
    wanted: dict[tuple[int, int], list[str]] = collections.defaultdict(list)
    video_ids = {request.video_id for request in requests}
    for number, part in others.items():
        size = len(part.manifest.shards)
        in_shards = {video_id: shard_of(video_id, size) for video_id in video_ids}
        for request in requests:
            wanted[number, part.first + in_shards[request.video_id]].append(request.clip_id)
    found: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        keys = threads.map(lambda key: _keys(plan.base, plan.base_sha256, key[1]), wanted)
        for ((number, shard), clip_ids), of_shard in zip(wanted.items(), keys, strict=True):
            own = np.array([records.clip_key(clip_id) for clip_id in clip_ids], np.uint64)
            maybe = {clip_ids[i] for i in np.flatnonzero(np.isin(own, of_shard))}
            for clip_id in maybe & _ids(plan.base, plan.base_sha256, shard) if maybe else ():
                found[clip_id] = others[number].data_version
    return found


def share(plan: Plan) -> None:
    """Link or copy the files of the other increments into the new version.

    Raises:
      SnapshotError: a file is missing, or has another size than its manifest states.
    """
    parts = _parts(plan.base, plan.base_sha256)
    files = [
        file
        for number, part in enumerate(parts)
        if number != plan.increment
        for file in (
            part.manifest.plan,
            *(file for one in part.manifest.shards for file in (one.data, one.index, one.summary)),
        )
    ]
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(lambda file: snapshot.link_or_copy(plan.base, file, plan.out), files):
            pass


def joined(plan: Plan, own: Manifest) -> Manifest:
    """Return the manifest of the new version: the increment that was built, among the others.

    Args:
      plan: the plan of an append, or of a retry of one increment.
      own: the manifest of the increment as of a snapshot of its own, with its counts.

    Raises:
      SnapshotError: the earlier version has changed since the plan was made.
    """
    base = verify.read_manifest(plan.base)
    if snapshot.manifest_sha256(plan.base) != plan.base_sha256:
        raise SnapshotError(
            f"the manifest of {plan.base!r} has changed meanwhile: run the same command again into "
            "an empty folder"
        )
    parts = increments.split(base)
    counts = collections.Counter(dict(base.counts.rejects))
    rows, made = base.counts.rows + own.counts.rows, base.counts.records + own.counts.records
    if plan.increment == len(parts):
        parts.append(Increment(own, len(base.shards), plan.data_version, plan.base_sha256))
    else:
        old = parts[plan.increment]
        parts[plan.increment] = old._replace(manifest=own)
        name = contract.plan_name(plan.increment)
        before = _counts(plan.base, base, old, name)
        counts.subtract(dict(before.rejects))
        rows, made = rows - before.rows, made - before.records
    counts.update(dict(own.counts.rejects))
    rejects = {reason: count for reason, count in counts.items() if count}
    manifest = increments.joined(parts, plan.data_version)
    manifest.counts.CopyFrom(Counts(rows=rows, records=made, rejects=rejects))
    return manifest


def _counts(folder: str, manifest: Manifest, part: Increment, plan_name: str) -> Counts:
    stems = contract.shard_names(manifest)[part.first : part.first + len(part.manifest.shards)]
    return records.counts(folder, stems, plan_name)


@functools.lru_cache(maxsize=1)
def _parts(folder: str, manifest_sha256: str) -> list[Increment]:
    return increments.split(verify.manifest_of(folder))


# A process reads each index once: 8 bytes per record.
@functools.cache
def _keys(folder: str, manifest_sha256: str, shard: int) -> np.ndarray:
    return records.clip_keys(folder, verify.manifest_of(folder), shard)


@functools.lru_cache(maxsize=8)
def _ids(folder: str, manifest_sha256: str, shard: int) -> frozenset[str]:
    entries = records.index(folder, verify.manifest_of(folder), shard)
    return frozenset(entry.clip_id for entry in entries)
