"""plan.json, what became of rows that reached no shard: millions, perhaps, so one at a time."""

import os
from collections.abc import Iterable, Iterator

import ijson
from google.protobuf import json_format

from pipelines import snapshot, storage
from protos import contract
from protos.v1.manifest_pb2 import FileEntry, Reject


def write(folder: str, rows: int, rejects: Iterable[Reject]) -> FileEntry:
    """Writes what `snapshot.to_json` makes of a PlanSummary.

    Args:
      folder: the snapshot's.
      rows: annotation rows read.
      rejects: in order of row.
    """
    with storage.NewFile(os.path.join(folder, contract.PLAN_NAME)) as file:
        before = b'{\n "rejects": [\n  '
        for reject in rejects:
            # No line ends within JSON's strings: each one here is the layout's.
            file.write(before + snapshot.to_json(reject).rstrip(b"\n").replace(b"\n", b"\n  "))
            before = b",\n  "
        file.write((b"\n ],\n" if file.bytes else b"{\n") + b' "rows": "%d"\n}\n' % rows)
    return FileEntry(name=contract.PLAN_NAME, bytes=file.bytes, sha256=file.sha256)


def rejects(folder: str) -> Iterator[Reject]:
    """The rejects, in order of row; fields of a newer schema are passed over.

    Raises:
      SnapshotError: the file is not there or is damaged.
    """
    try:
        for fields in _items(folder, "rejects.item"):
            yield json_format.ParseDict(fields, Reject(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise _damaged(folder, error) from None


def rows(folder: str) -> int:
    """The annotation rows read; 0 if the file does not say.

    Raises:
      SnapshotError: the file is not there or is damaged.
    """
    try:
        return sum(int(rows) for rows in _items(folder, "rows"))
    except (TypeError, ValueError) as error:
        raise _damaged(folder, error) from None


def _items(folder: str, prefix: str) -> Iterator:
    path = os.path.join(folder, contract.PLAN_NAME)
    try:
        with storage.open_to_read(path) as file:
            yield from ijson.items(file, prefix)
    except OSError as error:
        raise snapshot.SnapshotError(f"{path}: {error.strerror}") from None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise _damaged(folder, error) from None


def _damaged(folder: str, error: Exception) -> snapshot.SnapshotError:
    why = str(error).partition("\n")[0]
    return snapshot.SnapshotError(f"{os.path.join(folder, contract.PLAN_NAME)} is damaged: {why}")
