"""Values of a column from a user's file of clip ids and values: CSV, or JSON Lines."""

import csv
import hashlib
import itertools
import json
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TextIO

import numpy as np
from jaxtyping import Int64, UInt64

from protos.strict_json import first_line, parse_object
from trainer.data.columns import ColumnError, Values
from trainer.data.snapshot import Snapshot

CLIP_ID = "clip_id"
_AT_ONCE = 65_536  # clips whose ids are in memory
_EXACT = 2**53  # largest integer up to which float64 has all
_EXACT_FLOAT32 = 2**24
_LARGEST = float(np.finfo(np.float32).max)

_Number = int | float
_Value = _Number | list[_Number] | None


class FromFile(NamedTuple):
    """The values of a column, and what the file lacked or had besides."""

    name: str
    values: Values
    missing: int  # number of clips without a value, whose value is NaN
    unknown: int  # number of ids that the snapshot does not have


def read_values(
    path: str | os.PathLike[str],
    snapshot: Snapshot,
    name: str | None = None,
    *,
    allow_missing: bool = False,
    allow_unknown: bool = False,
) -> FromFile:
    """Read the value of each clip of a snapshot, in any order of the clips.

    The values are int64 if all are integers and none is missing, else float32. In JSON Lines a
    value may be a list of numbers, which makes vectors.

    Args:
      path: a .csv file with a header, or a .jsonl file with an object per line. Both have `clip_id`
        and the value. An empty cell or null is no value.
      snapshot: the snapshot.
      name: the name of the value's field; None if each row has one besides `clip_id`.
      allow_missing: whether clips may lack a value. Else they are refused.
      allow_unknown: whether ids that the snapshot does not have are left out, not refused.

    Raises:
      ColumnError: a row is damaged, has no number, or has a clip again; or a clip is missing or
        unknown that is not allowed to be.
      OSError: the file cannot be read.
    """
    path = pathlib.Path(path)
    rows = {".csv": _csv, ".jsonl": _json_lines}.get(path.suffix)
    if rows is None:
        raise ColumnError(f"{path} is neither a .csv nor a .jsonl file: convert it to one of them")
    marks = _snapshot_marks(snapshot)
    order = np.argsort(marks, kind="stable")
    marks = marks[order]
    if (marks[1:] == marks[:-1]).any():
        raise ColumnError(f"{snapshot.folder} has a clip id twice: svilm-pipelines verify lists it")
    filling = _Filling(len(snapshot))
    unknown = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            name, pairs = rows(path, file, name)
            while some := list(itertools.islice(pairs, _AT_ONCE)):
                wanted = _marks(clip_id for _, clip_id, _ in some)
                places = np.minimum(np.searchsorted(marks, wanted), len(marks) - 1)
                records = np.where(marks[places] == wanted, order[places], -1)
                for record, (line, clip_id, value) in zip(records.tolist(), some, strict=True):
                    where = f"{path}:{line}: clip {clip_id!r:.100}"
                    if record >= 0:
                        filling.put(record, value, where)
                    elif allow_unknown:
                        unknown += 1
                    else:
                        raise ColumnError(
                            f"{where} is not in {snapshot.folder}: remove the row, or leave such "
                            "clips out with --ignore-unknown"
                        )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ColumnError(f"{path} is damaged ({first_line(error)}): correct the file") from None
    without = filling.without_value()
    if without.size and not allow_missing:
        raise ColumnError(
            f"{path} has no value for {without.size:,} of {len(snapshot):,} clips of "
            f"{snapshot.folder}, such as {snapshot.clip_ids(without[:1])[0]}: add them, or state "
            "why with --missing"
        )
    return FromFile(name, filling.values(path), int(without.size), unknown)


class _Filling:
    """The values of a column while they are read."""

    def __init__(self, records: int) -> None:
        self._values = np.full(records, np.nan)
        self._seen = np.zeros(records, bool)
        self._integers, self._largest = True, 0.0

    def put(self, record: int, value: _Value, where: str) -> None:
        """Keep the value of a record."""
        if self._seen[record]:
            raise ColumnError(f"{where} occurs twice: leave one of its rows out")
        self._seen[record] = True
        if value is None:
            return
        if isinstance(value, list):
            if self._values.ndim == 1 and np.isnan(self._values).all():  # the first value
                self._values = np.full((len(self._values), len(value)), np.nan, np.float32)
            if self._values.shape[1:] != (len(value),):
                raise ColumnError(f"{where} has {len(value)} numbers, others have another number")
            self._integers = False
        elif self._values.ndim > 1:
            raise ColumnError(f"{where} has a number, but others have lists: give lists")
        elif isinstance(value, float):
            self._integers = False
        self._values[record] = value
        self._largest = max(self._largest, *map(abs, value if isinstance(value, list) else [value]))

    def without_value(self) -> Int64[np.ndarray, " n"]:
        """Return the records that have no value."""
        return np.flatnonzero(np.isnan(self._values.reshape(len(self._values), -1)[:, 0]))

    def values(self, path: pathlib.Path) -> Values:
        """Return all values in the type of the column."""
        whole = self._integers and not np.isnan(self._values).any()
        if self._integers and self._largest > (_EXACT if whole else _EXACT_FLOAT32):
            raise ColumnError(
                f"{path} has the integer {self._largest:.0f}, which is not exact in a column"
                + ("" if whole else " with missing values")
                + ": number the values from 0"
            )
        return self._values.astype(np.int64 if whole else np.float32)


def _csv(
    path: pathlib.Path, file: TextIO, name: str | None
) -> tuple[str, Iterator[tuple[int, str, _Value]]]:
    """Return the name of the value, and the line, the clip's id and the value of each row."""
    table = csv.reader(file, strict=True)
    header = next(table, [])
    name = _chosen(path, header, name)
    id_cell, value_cell = header.index(CLIP_ID), header.index(name)

    def rows() -> Iterator[tuple[int, str, _Value]]:
        for cells in table:
            where = f"{path}:{table.line_num}"
            if len(cells) != len(header):
                raise ColumnError(
                    f"{where} has {len(cells)} cells, but the header {len(header)}: correct it"
                )
            text = cells[value_cell].strip()
            whole = re.fullmatch(r"[+-]?[0-9]{1,99}", text)
            try:
                value = None if not text else int(text) if whole else float(text)
            except ValueError:
                value = math.nan
            yield table.line_num, cells[id_cell], _number(value, text, where)

    return name, rows()


def _json_lines(
    path: pathlib.Path, file: TextIO, name: str | None
) -> tuple[str, Iterator[tuple[int, str, _Value]]]:
    """Return the name of the value, and the line, the clip's id and the value of each line."""
    objects = ((number, _object(path, number, line)) for number, line in enumerate(file, 1))
    first = list(itertools.islice(objects, 1))
    chosen = _chosen(path, [*first[0][1]] if first else [], name)

    def rows() -> Iterator[tuple[int, str, _Value]]:
        for number, fields in itertools.chain(first, objects):
            where, clip_id = f"{path}:{number}", fields.get(CLIP_ID)
            if not isinstance(clip_id, str) or chosen not in fields:
                raise ColumnError(f"{where} lacks {CLIP_ID} or {chosen}: correct it")
            given, text = fields[chosen], json.dumps(fields[chosen])
            if isinstance(given, list) and given:
                checked = [_number(one, text, where) for one in given]
                if None in checked:
                    raise ColumnError(f"{where} has null in a list: give numbers")
                yield number, clip_id, [one for one in checked if one is not None]
            else:
                yield number, clip_id, _number(given, text, where)

    return chosen, rows()


def _object(path: pathlib.Path, number: int, line: str) -> dict[str, Any]:
    try:
        return parse_object(line)
    except ValueError as error:
        raise ColumnError(f"{path}:{number} is damaged ({error}): correct it") from None


def _chosen(path: pathlib.Path, fields: list[str], name: str | None) -> str:
    """Return the name of the value's field."""
    others = [field for field in fields if field != CLIP_ID]
    if len(fields) != len(others) + 1 or not others:
        raise ColumnError(
            f"{path} has the fields {', '.join(fields)[:200] or 'of no row'}: it requires one "
            f"{CLIP_ID} and a value"
        )
    if name is None and len(others) == 1:
        return others[0]
    if others.count(str(name)) != 1:
        raise ColumnError(
            f"{path} has the fields {', '.join(others)[:200]}: give one of them with --name"
        )
    return str(name)


def _number(value: Any, text: str, where: str) -> _Number | None:
    """Return a value as a number that a column can have; a boolean is 0 or 1."""
    if value is None:
        return None
    number = int(value) if isinstance(value, bool) else value
    if not isinstance(number, int | float) or not abs(number) <= _LARGEST:
        raise ColumnError(f"{where} has {text:.80}, which is no finite number: correct it")
    return number


def _snapshot_marks(snapshot: Snapshot) -> UInt64[np.ndarray, " records"]:
    found = np.empty(len(snapshot), np.uint64)
    for first in range(0, len(snapshot), _AT_ONCE):
        some = np.arange(first, min(first + _AT_ONCE, len(snapshot)))
        found[some] = _marks(snapshot.clip_ids(some))
    return found


def _marks(clip_ids: Iterable[str]) -> UInt64[np.ndarray, " n"]:
    """Return 64 bits of each id's hash, since the ids of 136 million clips exceed memory."""
    digests = (hashlib.blake2b(one.encode(), digest_size=8).digest() for one in clip_ids)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
