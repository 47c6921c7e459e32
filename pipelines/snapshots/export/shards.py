"""The shards of an export, written by several processes into a folder with a mark."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pipelines.processes import pool
from pipelines.snapshots import records, snapshot, verify
from pipelines.snapshots.records import Place
from pipelines.storage import storage
from protos import contract
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import Manifest

# The mark exists until an export is finished. It identifies the export, so that only the same
# command may restart it.
_MARK = "export.json"
_UNFINISHED = storage.UNFINISHED

Result = TypeVar("Result")


class Job(NamedTuple):
    """A shard to write."""

    folder: str  # of the snapshot
    shard: int
    path: str  # of the new file
    labels: Mapping[str, int] = {}  # numbers of class names, if the format has them


def jobs(
    folder: str, manifest: Manifest, out: str, *, prefix: str = "shard", suffix: str
) -> list[Job]:
    """Return a job for each shard of a snapshot, whose file has the shard's number."""
    return [
        Job(folder, shard, os.path.join(out, f"{prefix}{name.removeprefix('shard')}.{suffix}"))
        for shard, name in enumerate(contract.shard_names(manifest))
    ]


def each(
    write: Callable[[Job], Result],
    todo: Sequence[Job],
    workers: int,
    progress: Callable[[int, int], None],
) -> list[Result]:
    """Call `write` with each job in `workers` processes, and return the results in order.

    Raises:
      WorkerDiedError: a worker process was killed.
    """
    found: dict[str, Result] = {}
    for job, result in pool.each(write, todo, workers):
        found[job.path] = result
        progress(len(found), len(todo))
    return [found[job.path] for job in todo]


def identity(manifest: Manifest) -> dict[str, Any]:
    """Return what identifies a snapshot's content in the mark of its export."""
    return {name: getattr(manifest, name) for name in _IDENTITY}


_IDENTITY = ("data_version", "inputs_sha256", "config_sha256")


@contextlib.contextmanager
def exporting(
    out: str, mark: Mapping[str, Any], others: Sequence[str], prefixes: Sequence[str] = ("shard-",)
) -> Iterator[None]:
    """Prepare a folder that is empty or holds the rest of the same, killed export.

    Args:
      out: the folder.
      mark: the format, the snapshots and all options that affect the files.
      others: names of the files that the export writes beside the shards.
      prefixes: beginnings of the names of the shards.

    Raises:
      SnapshotError: the folder holds anything else.
    """
    export, path = (json.dumps(mark) + "\n").encode(), os.path.join(out, _MARK)
    storage.make_folder(out)
    names = [name for name in storage.names(out) if name != _MARK]
    same = storage.exists(path) and storage.read(path) == export
    for name in names:
        written = name.startswith((*prefixes,)) or name in others or name.endswith(_UNFINISHED)
        if not (written and same) and not _of_mark(name):
            raise snapshot.SnapshotError(
                f"--out {out!r} already contains {name!r}: choose an empty folder"
            )
    if storage.exists(path) and not same:
        raise snapshot.SnapshotError(
            f"--out {out!r} contains another, incomplete export: choose an empty folder"
        )
    for name in names:
        storage.remove(os.path.join(out, name))
    snapshot.write_file(out, _MARK, export)
    yield
    storage.remove(path)


def _of_mark(name: str) -> bool:
    return name.startswith(f"{_MARK}.") and name.endswith(_UNFINISHED)


def clips(job: Job) -> Iterator[Clip]:
    """Yield the records of a job's shard.

    Raises:
      SnapshotError: a record or an index is damaged.
    """
    manifest = verify.manifest_of(job.folder)
    places = [Place(job.shard, i) for i in range(manifest.shards[job.shard].records)]
    yield from records.read(job.folder, manifest, places)
