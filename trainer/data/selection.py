"""Selection of the records of snapshots to train on, and their weights, by columns."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt

from trainer.configs.config import InputConfig
from trainer.data import where
from trainer.data.columns import Column, ColumnError
from trainer.data.snapshot import Snapshot


class Selection(NamedTuple):
    """The records of a snapshot to train on."""

    kept: UInt[np.ndarray, " k"] | None = None  # ascending; None: all, or those with a weight
    weights: Float[np.ndarray, " records"] | None = None  # 0: not visited; None: all equal
    columns: tuple[Column, ...] = ()  # the columns that it depends on, without their values

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of the values of each column, by name."""
        return {column.name: column.values_sha256 for column in self.columns}

    def count(self, records: int) -> int:
        """Return how many of the snapshot's records are visited."""
        if self.weights is not None:
            return int(np.count_nonzero(self.weights))
        return records if self.kept is None else len(self.kept)

    def records(self, count: int) -> Int64[np.ndarray, " k"]:
        """Return the records that are visited, of the `count` of the snapshot."""
        if self.weights is not None:
            return np.flatnonzero(self.weights)
        return np.arange(count) if self.kept is None else self.kept.astype(np.int64)


def select(
    snapshots: Sequence[Snapshot], columns: Iterable[Column], config: InputConfig
) -> list[Selection]:
    """Return the records of each snapshot that `config.where` keeps, and their weights.

    Args:
      snapshots: the snapshots of a mixture.
      columns: the columns that the configuration names, of any snapshot, in any order.
      config: its `where` and `weights_column` have no value, one for all snapshots, or one each.

    Raises:
      WhereError: an expression is not understood.
      ColumnError: a column is missing, is not used, or is of another snapshot; no record is kept;
        or a weight is negative or missing.
    """
    wheres = _per_snapshot("where", config.where, len(snapshots))
    weights = _per_snapshot("weights_column", config.weights_column, len(snapshots))
    by_snapshot: dict[str, dict[str, Column]] = {one.manifest_sha256: {} for one in snapshots}
    for column in columns:
        of_snapshot = by_snapshot.get(column.manifest_sha256)
        if of_snapshot is None:
            raise ColumnError(
                f"{column.path} is a column of another snapshot than those to train on (of "
                f"manifest_sha256 {column.manifest_sha256[:12]}…): make it for this version"
            )
        if other := of_snapshot.get(column.name):
            raise ColumnError(
                f"{column.path} and {other.path} are both a column {column.name} of one snapshot: "
                "give one of them"
            )
        of_snapshot[column.name] = column
    selections = []
    for snapshot, expression, weight in zip(snapshots, wheres, weights, strict=True):
        of_snapshot = by_snapshot[snapshot.manifest_sha256]
        selections.append(_select(snapshot, of_snapshot, expression, weight))
        for column in selections[-1].columns:
            of_snapshot.pop(column.name)
    for column in (column for unused in by_snapshot.values() for column in unused.values()):
        raise ColumnError(
            f"{column.path}: neither input.where nor input.weights_column names {column.name}: "
            "leave the column out"
        )
    return selections


def _per_snapshot(name: str, values: tuple[str, ...], count: int) -> tuple[str, ...]:
    if len(values) > 1 and len(values) != count:
        raise ColumnError(
            f"input.{name} has {len(values)} for {count} snapshots: give one for all, or one for "
            "each --snapshot, in their order"
        )
    return values if len(values) == count else (values or ("",)) * count


def _select(
    snapshot: Snapshot, columns: dict[str, Column], expression: str, weight: str
) -> Selection:
    named = where.names(expression) if expression else []
    used = [_scalars(snapshot, columns, name) for name in sorted({*named, weight} - {""})]
    values = {column.name: column.values for column in used}
    keeps = where.holds(expression, values) if expression else None
    if keeps is not None and not keeps.any():
        raise ColumnError(f"{snapshot.folder}: {expression!r:.200} keeps none of its clips")
    about = tuple(column._replace(values=column.values[:0].copy()) for column in used)
    if weight:
        return Selection(None, _weights(snapshot, values[weight], weight, keeps), about)
    if keeps is None:
        return Selection()
    numbers = np.flatnonzero(keeps)
    return Selection(numbers.astype(np.min_scalar_type(len(keeps))), None, about)


def _scalars(snapshot: Snapshot, columns: dict[str, Column], name: str) -> Column:
    if name not in columns:
        known = f" (given: {', '.join(sorted(columns))})" if columns else ""
        raise ColumnError(
            f"there is no column {name} of {snapshot.folder}{known}: give its file with --column"
        )
    column = columns[name]
    if column.values.ndim != 1:
        raise ColumnError(
            f"{column.path} has a vector per clip, which input.where and input.weights_column "
            "cannot use: give a column of numbers"
        )
    return column


def _weights(
    snapshot: Snapshot,
    values: np.ndarray,
    name: str,
    keeps: Bool[np.ndarray, " records"] | None,
) -> Float[np.ndarray, " records"]:
    """Return the weight of each record, 0 for those that are not kept."""
    with np.errstate(invalid="ignore"):
        wrong = ~(values >= 0)
    if keeps is not None:
        wrong &= keeps
    if wrong.any():
        record = int(np.flatnonzero(wrong)[0])
        raise ColumnError(
            f"the weight {values[record]:g} of column {name} for clip "
            f"{snapshot.clip_ids([record])[0]} is no number of 0 or more: correct it, or keep the "
            f"other clips with --where '{name} >= 0'"
        )
    weights = values.astype(np.float32 if values.dtype.kind == "f" else np.float64)
    if keeps is not None:
        weights[~keeps] = 0
    if not weights.any():
        raise ColumnError(
            f"{snapshot.folder}: column {name} is 0 for all clips that are kept: give a weight "
            "above 0"
        )
    return weights
