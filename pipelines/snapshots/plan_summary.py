"""plan.json, the rejects of rows that reached no shard, streamed because there may be millions.

Each append has a file of its own, plan-i00001.json.
"""

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


def write(
    folder: str, rows: int, rejects: Iterable[Reject], name: str = contract.PLAN_NAME
) -> FileEntry:
    """Write the file with the bytes that `snapshot.to_json` returns for a PlanSummary.

    Args:
      folder: the snapshot's folder.
      rows: number of annotation rows read.
      rejects: rejects in order of row.
      name: name of the file.
    """
    with storage.NewFile(os.path.join(folder, name)) as file:
        before = b'{\n "rejects": [\n  '
        for reject in rejects:
            # JSON strings contain no line ends, so each one here belongs to the layout.
            file.write(before + snapshot.to_json(reject).rstrip(b"\n").replace(b"\n", b"\n  "))
            before = b",\n  "
        file.write((b"\n ],\n" if file.bytes else b"{\n") + b' "rows": "%d"\n}\n' % rows)
    return FileEntry(name=name, bytes=file.bytes, sha256=file.sha256)


def rejects(folder: str, name: str = contract.PLAN_NAME) -> Iterator[Reject]:
    """Yield the rejects in order of row, ignoring fields of a newer schema.

    Raises:
      SnapshotError: the file is missing or damaged.
    """
    for field, value in _fields(folder, name):
        if field == "rejects":
            try:
                yield contract.from_values(value, Reject)
            except contract.ContractError as error:
                raise _damaged(folder, name, error) from None


def rows(folder: str, name: str = contract.PLAN_NAME) -> int:
    """Return the number of annotation rows read, or 0 if the file does not state it.

    Raises:
      SnapshotError: the file is missing or damaged.
    """
    found = [value for field, value in _fields(folder, name) if field == "rows"]
    if len(found) > 1 or not all(
        isinstance(rows, str | int) and _ROWS.fullmatch(str(rows)) for rows in found
    ):
        raise _damaged(folder, name, "rows is not a count")
    return sum(map(int, found))


def _fields(folder: str, file_name: str) -> Iterator[tuple[str, Any]]:
    """Yield the file's names and values, with one pair per element of "rejects"."""
    path = os.path.join(folder, file_name)
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
        raise snapshot.SnapshotError(
            f"{path}: {error.strerror}: check that it exists and is readable"
        ) from None
    except StreamError as error:
        raise _damaged(folder, file_name, error) from None


def _damaged(folder: str, name: str, error: object) -> snapshot.SnapshotError:
    why = str(error).partition("\n")[0]
    return snapshot.SnapshotError(
        f"{os.path.join(folder, name)} is damaged: {why}: build the snapshot again"
    )
