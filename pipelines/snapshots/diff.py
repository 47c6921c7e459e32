"""The differences between two snapshots, with their reasons.

Records are compared by id, then by length and by the CRC32C at each record's end. Frames are read
only where the reason for a difference depends on the record's own row or video.
"""

import collections
import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping

from google.protobuf.json_format import MessageToDict

from pipelines.snapshots import records, snapshot, split
from pipelines.snapshots.records import Place
from pipelines.sources.reject_reasons import REMOVED
from pipelines.storage import storage
from protos import contract, tfrecord
from protos.v1.manifest_pb2 import Manifest, Reject
from protos.video_id import video_key


@dataclasses.dataclass(frozen=True)
class Change:
    """A record that only one of the snapshots has, or that differs between them."""

    clip_id: str
    why: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """All differences between an old and a new snapshot."""

    manifest: dict[str, tuple[str, str]]  # old and new value of each field that differs
    added: list[Change]
    removed: list[Change]
    changed: list[Change]
    same: int  # number of identical records
    rejects: dict[str, tuple[int, int]]  # old and new count of each reason, where they differ

    def __bool__(self) -> bool:
        """Return whether the snapshots differ."""
        return bool(self.manifest or self.added or self.removed or self.changed or self.rejects)


@dataclasses.dataclass(frozen=True)
class _Side:
    """One of the two snapshots."""

    folder: str
    manifest: Manifest
    records: dict[str, tuple[Place, bytes]]  # by clip_id: place, and length + checksum bytes
    videos: dict[str, str]  # sha256 by video id
    rejects: dict[str, Reject]  # by source row


def compare(old: str, old_manifest: Manifest, new: str, new_manifest: Manifest) -> Difference:
    """Compare two snapshots.

    Raises:
      SnapshotError: a file of either snapshot is missing or damaged.
    """
    before, after = _side(old, old_manifest), _side(new, new_manifest)
    fields = _fields(old_manifest, new_manifest)
    ids = before.records.keys() & after.records.keys()
    changed = sorted(i for i in ids if before.records[i][1] != after.records[i][1])
    counts = old_manifest.counts.rejects, new_manifest.counts.rejects
    return Difference(
        manifest=fields,
        added=list(_only(after, before, "new annotation row", "was rejected")),
        removed=list(_only(before, after, "no annotation row", "rejected")),
        changed=list(_changed(before, after, changed, fields)),
        same=len(ids) - len(changed),
        rejects={
            reason: (counts[0][reason], counts[1][reason])
            for reason in sorted(set(counts[0]) | set(counts[1]))
            if counts[0][reason] != counts[1][reason]
        },
    )


def lines(difference: Difference, maximum: int) -> Iterator[str]:
    """Yield a readable report that lists up to `maximum` records of each kind, and the counts."""
    for field, (old, new) in difference.manifest.items():
        yield f"{field}: {old} → {new}"
    for reason, (old, new) in difference.rejects.items():
        yield f"rejects, {reason}: {old:,} → {new:,}"
    for kind, changes in (
        ("added", difference.added),
        ("removed", difference.removed),
        ("changed", difference.changed),
    ):
        for why, count in sorted(collections.Counter(change.why for change in changes).items()):
            yield f"{kind}: {count:,} ({why})"
        for change in changes[:maximum]:
            yield f"  {kind} {change.clip_id} ({change.why})"
        if len(changes) > maximum:
            yield f"  … and {len(changes) - maximum:,} more"
    yield f"unchanged: {difference.same:,} records"


def _side(folder: str, manifest: Manifest) -> _Side:
    found: dict[str, tuple[Place, bytes]] = {}
    named = zip(contract.shard_names(manifest), manifest.shards, strict=True)
    for shard, (stem, files) in enumerate(named):
        snapshot.check_size(folder, files.data)
        entries = records.index(folder, manifest, shard)
        ends = [entry.offset + entry.length for entry in entries]
        checksums = storage.read_ranges(
            os.path.join(folder, f"{stem}.tfrecord"),
            [(end - tfrecord.FOOTER_BYTES, end) for end in ends],
        )
        for number, (entry, checksum) in enumerate(zip(entries, checksums, strict=True)):
            found[entry.clip_id] = Place(shard, number), entry.length.to_bytes(8) + checksum
    return _Side(
        folder,
        manifest,
        found,
        {
            video.video_id: video.sha256
            for summary in records.summaries(folder, manifest)
            for video in summary.videos
        },
        {reject.source_row: reject for reject in records.rejects(folder, manifest)},
    )


def _fields(old: Manifest, new: Manifest) -> dict[str, tuple[str, str]]:
    """Return the options, versions and inputs that differ, each with its old and new value."""
    sides = []
    for manifest in (old, new):
        fields = {
            "dataset": manifest.dataset,
            "data version": manifest.data_version,
            "schema version": manifest.schema_version,
        }
        config = MessageToDict(manifest.config, preserving_proto_field_name=True)
        if "split" in config:
            config["split"] = split.described(manifest.config.split)
        fields |= {f"option {name}": str(value) for name, value in config.items()}
        fields |= {f"version of {name}": text for name, text in manifest.versions.items()}
        fields |= {f"annotations {file.name}": file.sha256[:12] for file in manifest.annotations}
        sides.append(fields)
    names = dict.fromkeys(itertools.chain(*sides))
    pairs = {name: (sides[0].get(name, "none"), sides[1].get(name, "none")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _only(side: _Side, other: _Side, no_row: str, rejected: str) -> Iterator[Change]:
    """Yield the records that `side` has and `other` lacks, in order of place."""
    missing = side.records.keys() - other.records.keys()
    places = sorted(side.records[clip_id][0] for clip_id in missing)
    removed = set(map(video_key, other.manifest.removed_videos))
    for clip in records.read(side.folder, side.manifest, places):
        reject = other.rejects.get(clip.source_row)
        if video_key(clip.video_id) in removed:
            yield Change(clip.clip_id, f"{rejected}: {REMOVED}")
        elif reject and reject.video_id == clip.video_id:
            yield Change(clip.clip_id, f"{rejected}: {reject.reason}")
        else:
            yield Change(clip.clip_id, no_row)


def _changed(
    before: _Side, after: _Side, clip_ids: list[str], fields: Mapping[str, tuple[str, str]]
) -> Iterator[Change]:
    """Yield the reason why each pair of records with the same id differs."""
    shaping = [
        name
        for name in fields
        if name.startswith(("option", "version of")) and name != "option num_shards"
    ]
    if shaping:  # Such a field explains every change, so no record is read.
        for clip_id in clip_ids:
            yield Change(clip_id, f"another {', '.join(shaping)}")
        return
    places = [before.records[clip_id][0] for clip_id in clip_ids]
    for clip in records.read(before.folder, before.manifest, places):
        same_video = before.videos.get(clip.video_id) == after.videos.get(clip.video_id)
        why = "another annotation row" if same_video else "another video file"
        yield Change(clip.clip_id, why)
