"""plan.json, what became of rows that reached no shard: millions, perhaps, so one at a time."""

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.snapshots import snapshot
from pipelines.sources.json_stream import JsonStream, StreamError
from pipelines.storage import storage
from protos import contract
from protos.v1.manifest_pb2 import FileEntry, Reject

_ROWS = re.compile("[0-9]{1,18}")


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
    """Yield the rejects, in order of row; fields of a newer schema are passed over.

    Raises:
      SnapshotError: the file is not there or is damaged.
    """
    for name, value in _fields(folder):
        if name == "rejects":
            try:
                yield contract.from_values(value, Reject)
            except contract.ContractError as error:
                raise _damaged(folder, error) from None


def rows(folder: str) -> int:
    """Return the number of annotation rows read; 0 if the file does not say.

    Raises:
      SnapshotError: the file is not there or is damaged.
    """
    found = [value for name, value in _fields(folder) if name == "rows"]
    if len(found) > 1 or not all(
        isinstance(rows, str | int) and _ROWS.fullmatch(str(rows)) for rows in found
    ):
        raise _damaged(folder, "rows is no count")
    return sum(map(int, found))


def _fields(folder: str) -> Iterator[tuple[str, Any]]:
    """Yield the file's names and values, for "rejects" one by one."""
    path = os.path.join(folder, contract.PLAN_NAME)
    try:
        with storage.open_to_read(path) as file:
            stream = JsonStream(file)
            for name in stream.names():
                if name == "rejects":
                    yield from ((name, item) for item in stream.items())
                else:
                    yield name, stream.value()
            stream.end()
    except OSError as error:
        raise snapshot.SnapshotError(f"{path}: {error.strerror}") from None
    except StreamError as error:
        raise _damaged(folder, error) from None


def _damaged(folder: str, error: object) -> snapshot.SnapshotError:
    why = str(error).partition("\n")[0]
    return snapshot.SnapshotError(f"{os.path.join(folder, contract.PLAN_NAME)} is damaged: {why}")
