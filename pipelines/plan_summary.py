"""plan.json, what became of rows that reached no shard: millions, perhaps, so one at a time."""

import os
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import ijson

from pipelines import snapshot, storage
from protos import contract
from protos.v1.manifest_pb2 import FileEntry, Reject

# No text of a reject is longer, so neither is a run of digits in one.
_DIGITS = 4_000
_TOO_LONG = re.compile(rb"[0-9]{%d}" % (_DIGITS + 1))
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
    """The rejects, in order of row; fields of a newer schema are passed over.

    Raises:
      SnapshotError: the file is not there or is damaged.
    """
    for fields in _items(folder, "rejects.item"):
        try:
            yield contract.from_values(fields, Reject)
        except contract.ContractError as error:
            raise _damaged(folder, error) from None


def rows(folder: str) -> int:
    """The annotation rows read; 0 if the file does not say.

    Raises:
      SnapshotError: the file is not there or is damaged.
    """
    found = list(_items(folder, "rows"))
    if len(found) > 1 or not all(
        isinstance(rows, str | int) and _ROWS.fullmatch(str(rows)) for rows in found
    ):
        raise _damaged(folder, ValueError("rows is no count"))
    return sum(map(int, found))


def _items(folder: str, prefix: str) -> Iterator:
    path = os.path.join(folder, contract.PLAN_NAME)
    try:
        with storage.open_to_read(path) as file:
            yield from ijson.items(_Bounded(file), prefix)
    except OSError as error:
        raise snapshot.SnapshotError(f"{path}: {error.strerror}") from None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise _damaged(folder, error) from None


class _Bounded:
    """A file in which no more digits follow each other than a plan has.

    ijson's parser crashes the process on an integer of more than 4,300 digits.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._before = file, b""

    def read(self, size: int) -> bytes:
        """Reads a block.

        Raises:
          ijson.JSONError: it has too long a number.
        """
        block = self._file.read(size)
        if _TOO_LONG.search(self._before + block):
            raise ijson.JSONError(f"a number of more than {_DIGITS} digits")
        self._before = (self._before + block)[-_DIGITS:]
        return block


def _damaged(folder: str, error: Exception) -> snapshot.SnapshotError:
    why = str(error).partition("\n")[0]
    return snapshot.SnapshotError(f"{os.path.join(folder, contract.PLAN_NAME)} is damaged: {why}")
