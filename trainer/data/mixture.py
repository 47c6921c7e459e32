"""Several snapshots as one, with consecutive record numbers and a weight for each snapshot."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from trainer.data import order
from trainer.data.selection import Selection
from trainer.data.snapshot import CorruptRecordError, Location, Snapshot
from trainer.errors import UserError

_MAX_VISITS = 2**40  # Places in an epoch are int64, also when they are multiplied by an epoch.


class MixtureError(UserError, ValueError):
    """Snapshots or weights that do not make a mixture."""


class Mixture:
    """Snapshots for joint training, safe to read from several threads."""

    def __init__(
        self,
        snapshots: Sequence[Snapshot],
        weights: Sequence[float] = (),
        selections: Sequence[Selection] = (),
    ) -> None:
        """Initialize the mixture.

        Args:
          snapshots: the snapshots.
          weights: how often an epoch visits each snapshot's clips, on average if the clips have
            weights of their own; empty: once.
          selections: which of each snapshot's clips are visited; empty: all, equally often.

        Raises:
          MixtureError: the number of weights and snapshots differs, a weight gives no clip or too
            many, or a snapshot is given twice.
        """
        if weights and len(weights) != len(snapshots):
            raise MixtureError(
                f"input.weights has {len(weights)} for {len(snapshots)} snapshots: give one for "
                "each --snapshot, in their order"
            )
        self.snapshots = tuple(snapshots)
        self.selections = tuple(selections) or (Selection(),) * len(snapshots)
        visits = [
            round(selection.count(len(snapshot)) * weight)
            for snapshot, weight, selection in zip(
                snapshots, weights or [1.0] * len(snapshots), self.selections, strict=True
            )
        ]
        known: dict[str, str] = {}
        for snapshot in self.snapshots:
            if other := known.get(snapshot.manifest_sha256):
                raise MixtureError(
                    f"{snapshot.folder} and {other} are the same snapshot, so a batch could have "
                    "a clip twice: give it once, with a larger weight in input.weights"
                )
            known[snapshot.manifest_sha256] = snapshot.folder
        for snapshot, selection, count in zip(self.snapshots, self.selections, visits, strict=True):
            if not count:
                raise MixtureError(
                    f"{snapshot.folder} has {selection.count(len(snapshot))} clips, and its weight "
                    "samples none of them: give a larger one in input.weights, or leave the "
                    "snapshot out"
                )
        if sum(visits) > _MAX_VISITS:
            raise MixtureError(
                f"input.weights give {sum(visits):,} clips per epoch, above the maximum of "
                f"{_MAX_VISITS:,}: give smaller ones"
            )
        self.sources = tuple(
            _source(len(snapshot), count, selection)
            for snapshot, count, selection in zip(
                self.snapshots, visits, self.selections, strict=True
            )
        )
        # Number of the first record of each snapshot, and the total at the end.
        self._starts = np.cumsum([0, *(source.records for source in self.sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def visits(self) -> int:
        """The number of clips per epoch."""
        return sum(source.visits for source in self.sources)

    def chosen(self) -> Int64[np.ndarray, " k"] | None:
        """Return the records that are visited, ascending; None: all."""
        if not any(selection.columns for selection in self.selections):
            return None
        starts = self._starts[:-1].tolist()
        parts = zip(self.selections, self.sources, starts, strict=True)
        return np.concatenate([start + one.records(of.records) for one, of, start in parts])

    def locate(self, record: int) -> Location:
        """Locate a record, as `Snapshot.locate` does."""
        number, first = self._snapshot_of(record)
        return self.snapshots[number].locate(record - first)

    def clip_ids(self, records: Int64[np.ndarray, " n"]) -> list[str]:
        """Return clip ids, as `Snapshot.clip_ids` does."""
        return self._gather(Snapshot.clip_ids, records)

    def read(self, records: Int64[np.ndarray, " n"]) -> list[bytes]:
        """Read records, as `Snapshot.read` does."""
        return self._gather(Snapshot.read, records)

    def _snapshot_of(self, record: int) -> tuple[int, int]:
        """Return the index of a record's snapshot, and the number of its first record."""
        number = int(np.searchsorted(self._starts[1:-1], record, side="right"))
        return number, int(self._starts[number])

    def _gather(
        self, ask: Callable[[Snapshot, Int64[np.ndarray, " m"]], list], records: np.ndarray
    ) -> list:
        """Call `ask` on each snapshot with its share of the records; answer in their order."""
        numbers = np.searchsorted(self._starts[1:-1], records, side="right")
        answers = [None] * len(records)
        for number in np.unique(numbers):
            first = int(self._starts[number])
            (rows,) = np.nonzero(numbers == number)
            try:
                found = ask(self.snapshots[number], records[rows] - first)
            except CorruptRecordError as error:
                raise CorruptRecordError(str(error), first + error.record) from error
            for row, answer in zip(rows.tolist(), found, strict=True):
                answers[row] = answer
        return answers


def _source(records: int, visits: int, selection: Selection) -> order.Source:
    """Return the source of a snapshot's selected records."""
    if selection.weights is None:
        return order.Source(records, visits, kept=selection.kept)
    return order.Source(records, visits, ends=order.ends_of_shares(selection.weights, visits))
