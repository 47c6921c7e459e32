"""A snapshot's files: written whole or not at all, and read back.

A file gets its name only when all of it is on disk: write beside it, fsync, rename.
"""

import collections
import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from protos import contract, tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import (
    AnnotationFile,
    Counts,
    FileEntry,
    PlanSummary,
    RecordEntry,
    ShardIndex,
    ShardSummary,
)

LOCK_NAME = "build.lock"
_UNFINISHED = ".unfinished"

M = TypeVar("M", bound=Message)


class SnapshotError(ValueError):
    """A snapshot's folder or file that is not as it should be."""


def to_json(message: Message) -> bytes:
    r"""A message as JSON, the same bytes every time.

    >>> to_json(FileEntry(name="plan.json", bytes=7)).decode()
    '{\n "bytes": "7",\n "name": "plan.json"\n}\n'
    """
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return (json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_json(path: str, kind: type[M]) -> M:
    """Reads what `to_json` made; fields of a newer schema are passed over.

    Raises:
      SnapshotError: the file is not there or is damaged.
    """
    try:
        fields = json.loads(Path(path).read_bytes())
        if not isinstance(fields, dict):
            raise ValueError("it is no JSON object")
        return json_format.ParseDict(fields, kind(), ignore_unknown_fields=True)
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror}") from None
    except (json_format.ParseError, ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise SnapshotError(f"{path} is damaged: {why}") from None


def write_file(folder: str, name: str, data: bytes) -> FileEntry:
    """Writes a whole file."""
    with _Unfinished(folder, name) as file:
        file.write(data)
    return file.entry()


def adopt(source: str, entry: FileEntry, folder: str) -> None:
    """Gives a new version a file of an older one: linked where the file system lets it, or copied.

    Raises:
      SnapshotError: the file is not what its entry says.
    """
    if os.path.basename(entry.name) != entry.name:
        raise SnapshotError(f"{source}: its manifest names {entry.name!r}, which lies elsewhere")
    old = os.path.join(source, entry.name)
    with contextlib.suppress(OSError):
        os.link(old, os.path.join(folder, entry.name))
        return
    with open(old, "rb") as file, _Unfinished(folder, entry.name) as copy:
        while block := file.read(1 << 20):
            copy.write(block)
        if copy.entry() != entry:
            raise SnapshotError(f"{old} is damaged: `svilm-pipelines verify` lists all that is")


class _Unfinished:
    """A file that gets its name at the end of its `with` block, or vanishes on an error."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = folder, name
        # Two runs of one work item must not write into one file.
        self._temporary = os.path.join(folder, f"{name}.{uuid.uuid4().hex}{_UNFINISHED}")
        self._digest, self.bytes = hashlib.sha256(), 0

    def __enter__(self):
        self._file = open(self._temporary, "xb")
        return self

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self._temporary, os.path.join(self._folder, self._name))
                _sync_folder(self._folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._temporary)

    def entry(self) -> FileEntry:
        return FileEntry(name=self._name, bytes=self.bytes, sha256=self._digest.hexdigest())


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ShardWriter:
    """Writes a shard's records, in order of clip_id, and then its index.

    Use as a context manager; the files appear when the block ends without an error, and
    `data` and `index` describe them from then on.
    """

    def __init__(self, folder: str, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._file = _Unfinished(folder, f"{stem}.tfrecord")
        self._index = ShardIndex()

    def __enter__(self):
        self._file.__enter__()
        return self

    def append(self, clip: Clip) -> None:
        """Adds a record.

        Raises:
          ValueError: its clip_id is not after the last one's.
        """
        records = self._index.records
        if records and clip.clip_id <= records[-1].clip_id:
            raise ValueError(f"clip {clip.clip_id!r} after {records[-1].clip_id!r}: not in order")
        framed = tfrecord.frame(clip.SerializeToString(deterministic=True))
        records.append(
            RecordEntry(offset=self._file.bytes, length=len(framed), clip_id=clip.clip_id)
        )
        self._file.write(framed)

    def __exit__(self, kind, error, trace) -> None:
        self._file.__exit__(kind, error, trace)
        if kind is None:
            self.data = self._file.entry()
            index = self._index.SerializeToString(deterministic=True)
            self.index = write_file(self._folder, f"{self._stem}.index", index)
            self.records = len(self._index.records)


def read_index(path: str) -> ShardIndex:
    """Reads a shard's index.

    Raises:
      SnapshotError: it is not there or is damaged.
    """
    try:
        return ShardIndex.FromString(Path(path).read_bytes())
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror}") from None
    except DecodeError:
        raise SnapshotError(f"{path} is no index") from None


def fault(folder: str, entry: FileEntry) -> str | None:
    """What is wrong with a file of the snapshot: not there, another size, another checksum."""
    path = os.path.join(folder, entry.name)
    try:
        size = os.stat(path).st_size
        if size != entry.bytes:
            return f"{entry.name}: {size} bytes where there should be {entry.bytes}"
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{entry.name}: {error.strerror}"
    if sha256 != entry.sha256:
        return f"{entry.name}: sha256 is {sha256}, should be {entry.sha256}"
    return None


def videos_sha256(summary: ShardSummary) -> str:
    """sha256, hex, of what identifies a shard's videos."""
    digest = hashlib.sha256()
    for file in summary.videos:
        digest.update(to_json(file))
    return digest.hexdigest()


def inputs_sha256(annotations: Iterable[AnnotationFile], videos: Iterable[str]) -> str:
    """Manifest.inputs_sha256, from the annotation files and each shard's `videos_sha256`."""
    digest = hashlib.sha256()
    for part in (*(file.sha256 for file in annotations), *videos):
        digest.update(part.encode())
    return digest.hexdigest()


def counts(folder: str, num_shards: int) -> Counts:
    """Rows, records and rejects by reason, as the plan's and the shards' summaries have them."""
    plan = read_json(os.path.join(folder, contract.PLAN_NAME), PlanSummary)
    rejects = collections.Counter(reject.reason for reject in plan.rejects)
    records = 0
    for shard in range(num_shards):
        name = f"{contract.shard_name(shard, num_shards)}.json"
        summary = read_json(os.path.join(folder, name), ShardSummary)
        rejects.update(reject.reason for reject in summary.rejects)
        records += summary.records
    return Counts(rows=plan.rows, records=records, rejects=rejects)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Makes the folder if need be and keeps other builds out of it.

    The kernel lets go of the lock when a process ends, however it ends.

    Raises:
      SnapshotError: another build holds it, or the folder cannot be written.
    """
    path = os.path.join(folder, LOCK_NAME)
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SnapshotError(
            f"cannot write to --out {folder!r} ({error.strerror}): name a folder that can be "
            "written and has room"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SnapshotError(
                f"another build writes to {folder!r} (it holds {LOCK_NAME}): "
                "wait for it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    finally:
        os.close(descriptor)


def clear_unfinished(folder: str, num_shards: int) -> None:
    """Removes what an earlier, killed build left half written; keeps its finished shards.

    Raises:
      SnapshotError: the folder holds anything else, which is left alone.
    """
    stems = {contract.shard_name(shard, num_shards) for shard in range(num_shards)}
    ours = {LOCK_NAME, contract.PLAN_NAME}
    ours |= {f"{stem}.{suffix}" for stem in stems for suffix in ("tfrecord", "index", "json")}
    names = sorted(os.listdir(folder))
    unfinished = [name for name in names if name.endswith(_UNFINISHED)]
    foreign = [name for name in names if name not in ours and name not in unfinished]
    if foreign:
        raise SnapshotError(
            f"--out {folder!r} holds {foreign[0]!r}, which is not of a build with "
            f"{num_shards} shards: choose an empty folder"
        )
    for name in unfinished:
        os.remove(os.path.join(folder, name))
