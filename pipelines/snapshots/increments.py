"""The increments of a snapshot: what its build and each append have added.

An append adds shards of its own after those of the earlier version, whose files both versions
share. Record numbers of the earlier version thus stay, and an append writes only what it adds.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipelines.snapshots import redaction
from pipelines.snapshots.snapshot import SnapshotError, config_sha256, shard_files
from protos import contract
from protos.v1 import manifest_pb2
from protos.v1.manifest_pb2 import AnnotationFile, Manifest


class Increment(NamedTuple):
    """One increment of a snapshot."""

    # Its shards, inputs and options as the manifest of a snapshot of its own, with the snapshot's
    # data version and without counts.
    manifest: Manifest
    first: int  # number of its first shard in the snapshot
    data_version: str  # version with which it came
    previous_sha256: str  # sha256 of the earlier version's manifest.json; empty for a build


def split(manifest: Manifest) -> list[Increment]:
    """Return a snapshot's increments in order, which is one if nothing was appended."""
    whole = Manifest()
    whole.CopyFrom(manifest)
    whole.ClearField("counts")
    if not manifest.increments:
        return [Increment(whole, 0, manifest.data_version, "")]
    for field in ("shards", "annotations", "increments"):
        whole.ClearField(field)
    # Most of a thousand increments have the same options, whose hash takes 0.5 ms.
    hashes: dict[tuple[int, bytes], str] = {}
    found, shard, file = [], 0, 0
    for number, about in enumerate(manifest.increments):
        own = Manifest()
        own.CopyFrom(whole)
        own.inputs_sha256 = about.inputs_sha256
        own.config.num_shards = about.shards
        if number:
            own.dataset = about.dataset
            own.config.source.CopyFrom(about.source)
            own.plan.CopyFrom(about.plan)
        options = own.config.num_shards, own.config.source.SerializeToString(deterministic=True)
        if options not in hashes:
            hashes[options] = config_sha256(own.config, own.versions)
        own.config_sha256 = hashes[options]
        own.shards.extend(manifest.shards[shard : shard + about.shards])
        own.annotations.extend(manifest.annotations[file : file + about.annotations])
        found.append(Increment(own, shard, about.data_version, about.previous_sha256))
        shard, file = shard + about.shards, file + about.annotations
    return found


def next_minor(data_version: str) -> str:
    """Return the next minor version: more records are no breaking change for readers.

    Raises:
      SnapshotError: the version is not of the form X.Y.Z.

    >>> next_minor("1.4.2")
    '1.5.0'
    """
    if not re.fullmatch(r"[0-9]+[.][0-9]+[.][0-9]+", data_version):
        raise SnapshotError(
            f"the data version {data_version!r} has no next minor version: give --data-version"
        )
    major, minor, _ = data_version.split(".")
    return f"{major}.{int(minor) + 1}.0"


def joined(parts: Sequence[Increment], data_version: str) -> Manifest:
    """Return the manifest of all increments, without counts; the inverse of `split`."""
    manifest = Manifest()
    manifest.CopyFrom(parts[0].manifest)
    manifest.data_version = data_version
    if len(parts) == 1:
        return manifest
    manifest.schema_version = contract.INCREMENTS_VERSION
    for number, part in enumerate(parts):
        own = part.manifest
        about = manifest.increments.add(
            shards=len(own.shards),
            annotations=len(own.annotations),
            inputs_sha256=own.inputs_sha256,
            data_version=part.data_version,
        )
        if number:
            about.previous_sha256 = part.previous_sha256
            about.dataset = own.dataset
            about.source.CopyFrom(own.config.source)
            about.plan.CopyFrom(own.plan)
            manifest.shards.extend(own.shards)
            manifest.annotations.extend(own.annotations)
    manifest.config.num_shards = len(manifest.shards)
    manifest.config_sha256 = config_sha256(manifest.config, manifest.versions)
    manifest.inputs_sha256 = inputs_sha256(one.inputs_sha256 for one in manifest.increments)
    return manifest


def inputs_sha256(of_increments: Iterable[str]) -> str:
    """Return Manifest.inputs_sha256 from the inputs_sha256 of two or more increments."""
    return hashlib.sha256("".join(of_increments).encode()).hexdigest()


def file_names(manifest: Manifest) -> set[str]:
    """Return the names of a snapshot's files, without manifest.json."""
    return {*contract.plan_names(manifest), *shard_files(contract.shard_names(manifest))}


def check_names(folder: str, manifest: Manifest) -> None:
    """Check that a manifest lists the files of its increments, under their names.

    Raises:
      SnapshotError: it lists another name.
    """
    listed = [manifest.plan, *(one.plan for one in manifest.increments[1:])]
    for entry, name in zip(listed, contract.plan_names(manifest), strict=True):
        _check_name(folder, entry, name)
    for shard, stem in zip(manifest.shards, contract.shard_names(manifest), strict=True):
        _check_name(folder, shard.data, f"{stem}.tfrecord")
        _check_name(folder, shard.index, f"{stem}.index")
        _check_name(folder, shard.summary, f"{stem}.json")


def _check_name(folder: str, entry: manifest_pb2.FileEntry, name: str) -> None:
    if entry.name != name:
        raise SnapshotError(
            f"the manifest of {folder!r} lists {entry.name!r:.100} instead of {name!r}: build the "
            "snapshot again"
        )


def with_annotations(
    folder: str, manifest: Manifest, files: Sequence[AnnotationFile]
) -> tuple[int, Increment]:
    """Return the increment that was built from some annotation files, and its number.

    Args:
      folder: the snapshot's folder, for messages.
      manifest: its manifest.
      files: the annotation files, in order.

    Raises:
      SnapshotError: there is none.
    """
    gone = redaction.redaction_of(frozenset(manifest.removed_videos))
    wanted = gone.annotations(files)
    for number, increment in enumerate(split(manifest)):
        if gone.annotations(increment.manifest.annotations) == wanted:
            return number, increment
    raise SnapshotError(
        f"{folder!r} has {len(manifest.increments)} increments, none of which was built from "
        f"{', '.join(repr(file.name) for file in files[:_NAMED])}: give the unchanged annotation "
        "files of its build or of one append"
    )


_NAMED = 5  # maximum number of annotation files in a message
