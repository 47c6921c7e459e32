"""Atomic writes of a snapshot's files, and their readers."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Set
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from pipelines.errors import UserError
from pipelines.storage import storage
from protos import contract, tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import (
    AnnotationFile,
    BuildConfig,
    FileEntry,
    Manifest,
    RecordEntry,
    ShardIndex,
    ShardSummary,
)

LOCK_NAME = "build.lock"
CROISSANT_NAME = "croissant.json"  # optional, and in no manifest
LIST_FAULTS = "`svilm-pipelines verify` lists all faults"

M = TypeVar("M", bound=Message)


class SnapshotError(UserError, ValueError):
    """An invalid or damaged snapshot folder or file."""


def to_json(message: Message) -> bytes:
    r"""Return a message as deterministic JSON.

    >>> to_json(FileEntry(name="plan.json", bytes=7)).decode()
    '{\n "bytes": "7",\n "name": "plan.json"\n}\n'
    """
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return (json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_json(path: str, kind: type[M], entry: FileEntry | None = None) -> M:
    """Read a message that `to_json` wrote, ignoring fields of a newer schema.

    Args:
      path: the file.
      kind: the message's type.
      entry: the file's entry in the manifest, which the file must match; None: not compared.

    Raises:
      SnapshotError: the file is missing or damaged, or is of another version of the snapshot.
    """
    try:
        data = storage.read(path)
        if entry is not None and hashlib.sha256(data).hexdigest() != entry.sha256:
            raise SnapshotError(f"{path} is not the file that the manifest lists: {LIST_FAULTS}")
        return contract.parse_json(data, kind)
    except OSError as error:
        raise _unreadable(path, error) from None
    except contract.ContractError as error:
        raise SnapshotError(f"{path} is damaged: {error}: build the snapshot again") from None


def write_file(folder: str, name: str, data: bytes) -> FileEntry:
    """Write a file atomically and return its entry."""
    with storage.NewFile(os.path.join(folder, name)) as file:
        file.write(data)
    return FileEntry(name=name, bytes=file.bytes, sha256=file.sha256)


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Write the manifest, which completes a snapshot.

    Raises:
      SnapshotError: another build has completed the snapshot meanwhile.
      ContractError: the manifest is invalid.
    """
    contract.check_manifest(manifest)
    path = os.path.join(folder, contract.MANIFEST_NAME)
    try:
        storage.write_new(path, to_json(manifest))
    except FileExistsError:
        raise SnapshotError(
            f"another build has completed {folder!r} in the meantime: choose another --out"
        ) from None


def manifest_sha256(folder: str) -> str:
    """Return the sha256, in hex, of a snapshot's manifest.json, which identifies the snapshot."""
    return storage.sha256(os.path.join(folder, contract.MANIFEST_NAME))


def link_or_copy(source: str, entry: FileEntry, folder: str) -> None:
    """Link or copy a file of an older version into a new one, within the store if possible.

    A file that is linked is not read, so only its size is compared with its entry.

    Raises:
      SnapshotError: the file does not match its entry.
    """
    if os.path.basename(entry.name) != entry.name:
        raise SnapshotError(
            f"the manifest of {source} lists {entry.name!r}, which is outside its folder: build "
            "the snapshot again"
        )
    old, new = os.path.join(source, entry.name), os.path.join(folder, entry.name)
    check_size(source, entry)
    if storage.duplicate(old, new):
        return
    if storage.exists(new) and fault(folder, entry) is None:
        return  # A killed command has copied it.
    with storage.open_to_read(old) as file, storage.NewFile(new) as copy:
        while block := file.read(1 << 20):
            copy.write(block)
        if (copy.bytes, copy.sha256) != (entry.bytes, entry.sha256):
            raise SnapshotError(f"{old} is damaged: {LIST_FAULTS}")


def check_size(folder: str, entry: FileEntry) -> None:
    """Compare a file's size with its entry, without reading the file.

    Raises:
      SnapshotError: the file is missing, or has another size.
    """
    path = os.path.join(folder, entry.name)
    try:
        size = storage.size(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    if size != entry.bytes:
        raise SnapshotError(
            f"{path} is damaged: it has {size} bytes instead of {entry.bytes}: {LIST_FAULTS}"
        )


class ShardWriter:
    """A writer of a shard's records, in order of clip_id, and of its index.

    Use it as a context manager. The files appear when the block ends without an error. From then
    on, `data` and `index` describe the files, and `records` is the number of records.
    """

    def __init__(self, folder: str, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._file = storage.NewFile(os.path.join(folder, f"{stem}.tfrecord"))
        self._index = ShardIndex()

    def __enter__(self):
        self._file.__enter__()
        return self

    def append(self, clip: Clip) -> None:
        """Append a record.

        Raises:
          ValueError: its clip_id does not follow the previous record's.
        """
        records = self._index.records
        if records and clip.clip_id <= records[-1].clip_id:
            raise ValueError(
                f"clips are not in order: {clip.clip_id!r} after {records[-1].clip_id!r}"
            )
        framed = tfrecord.frame(clip.SerializeToString(deterministic=True))
        records.append(
            RecordEntry(offset=self._file.bytes, length=len(framed), clip_id=clip.clip_id)
        )
        self._file.write(framed)

    def append_all(self, clips: Iterable[Clip]) -> None:
        """Append records, sorted by clip_id, all of which follow the previous records."""
        for clip in sorted(clips, key=lambda clip: clip.clip_id):
            self.append(clip)

    def __exit__(self, kind, error, trace) -> None:
        self._file.__exit__(kind, error, trace)
        if kind is None:
            self.data = FileEntry(
                name=f"{self._stem}.tfrecord", bytes=self._file.bytes, sha256=self._file.sha256
            )
            index = self._index.SerializeToString(deterministic=True)
            self.index = write_file(self._folder, f"{self._stem}.index", index)
            self.records = len(self._index.records)


def read_index(path: str, entry: FileEntry | None = None) -> ShardIndex:
    """Read a shard's index.

    Args:
      path: path of the index file.
      entry: the manifest's entry for the file; None skips the checksum, if already verified.

    Raises:
      SnapshotError: the file is missing or damaged.
    """
    try:
        data = storage.read(path)
        index = ShardIndex.FromString(data)
    except OSError as error:
        raise _unreadable(path, error) from None
    except DecodeError:
        raise SnapshotError(f"{path} is not an index: build the snapshot again") from None
    if entry is not None and hashlib.sha256(data).hexdigest() != entry.sha256:
        raise SnapshotError(
            f"{path} is damaged: its sha256 differs from the manifest's: build the snapshot again"
        )
    return index


def _unreadable(path: str, error: OSError) -> SnapshotError:
    return SnapshotError(f"{path}: {error.strerror}: check that it exists and is readable")


def fault(folder: str, entry: FileEntry) -> str | None:
    """Return the fault of a snapshot's file (missing, wrong size or wrong checksum), or None."""
    path = os.path.join(folder, entry.name)
    try:
        size = storage.size(path)
        if size != entry.bytes:
            return f"{entry.name}: has {size} bytes instead of {entry.bytes}"
        sha256 = storage.sha256(path)
    except OSError as error:
        return f"{entry.name}: {error.strerror}"
    if sha256 != entry.sha256:
        return f"{entry.name}: has sha256 {sha256} instead of {entry.sha256}"
    return None


def videos_sha256(summary: ShardSummary) -> str:
    """Return the sha256, in hex, over a shard's video entries."""
    digest = hashlib.sha256()
    for file in summary.videos:
        digest.update(to_json(file))
    return digest.hexdigest()


def inputs_sha256(annotations: Iterable[AnnotationFile], videos: Iterable[str]) -> str:
    """Return Manifest.inputs_sha256 from the annotation files and each shard's `videos_sha256`."""
    digest = hashlib.sha256()
    for part in (*(file.sha256 for file in annotations), *videos):
        digest.update(part.encode())
    return digest.hexdigest()


def clear_unfinished(folder: str, files: Set[str], *, complete: bool = False) -> None:
    """Remove the unfinished files of a killed build, and keep its finished shards.

    Args:
      folder: the build's folder.
      files: the names of all files that the build writes, without manifest.json.
      complete: whether the folder may hold a manifest.

    Raises:
      SnapshotError: the folder holds any other file. No file is removed then.
    """
    known = {LOCK_NAME, *files}
    optional = {contract.SIGNATURE_NAME, CROISSANT_NAME}
    known |= {contract.MANIFEST_NAME, *optional} if complete else set()
    names = storage.names(folder)
    unfinished = [name for name in names if name.endswith(storage.UNFINISHED)]
    foreign = [name for name in names if name not in known and name not in unfinished]
    if foreign:
        raise SnapshotError(
            f"--out {folder!r} contains {foreign[0]!r}, which this command does not write: choose "
            "an empty folder"
        )
    for name in unfinished:
        storage.remove(os.path.join(folder, name))


def shard_files(stems: Iterable[str]) -> set[str]:
    """Return the names of the files of shards, from the stems of their names.

    >>> sorted(shard_files(["shard-00000-of-00001"]))[0]
    'shard-00000-of-00001.index'
    """
    return {f"{stem}.{suffix}" for stem in stems for suffix in ("tfrecord", "index", "json")}


def config_sha256(config: BuildConfig, versions: Mapping[str, str]) -> str:
    """Return the sha256, in hex, of a manifest's configuration and versions."""
    data = to_json(config) + json.dumps(dict(versions), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def is_later(data_version: str, than: str) -> bool:
    """Return whether a semantic version is later than another, which may have any form.

    >>> is_later("1.10.0", "1.9.0"), is_later("1.9.0", "1.9.0"), is_later("1.0.0", "draft")
    (True, False, True)
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", than):
        return data_version != than
    new, old = ([*map(int, version.split("."))] for version in (data_version, than))
    return new > old


def shard_of(video_id: str, num_shards: int) -> int:
    """Return the shard of all clips of a video, which is thus decoded only once.

    >>> shard_of("dQw4w9WgXcQ", 16)
    14
    """
    return int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8]) % num_shards
