"""Several snapshots as one: their records numbered through, each visited as often as it weighs."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from trainer.data import order
from trainer.data.snapshot import CorruptRecordError, Location, Snapshot


class Mixture:
    """Snapshots that are trained on together. Safe to read from several threads."""

    def __init__(self, snapshots: Sequence[Snapshot], weights: Sequence[float] = ()) -> None:
        """Args: weights: how often an epoch visits each snapshot's clips; none: once.

        Raises:
          ValueError: there are more or fewer weights than snapshots, or one leaves no clip.
        """
        if weights and len(weights) != len(snapshots):
            raise ValueError(
                f"input.weights has {len(weights)} for {len(snapshots)} snapshots: give one for "
                "each --snapshot, in their order"
            )
        self.snapshots = tuple(snapshots)
        self.sources = tuple(
            order.Source(len(snapshot), round(len(snapshot) * weight))
            for snapshot, weight in zip(snapshots, weights or [1.0] * len(snapshots), strict=True)
        )
        for snapshot, source in zip(self.snapshots, self.sources, strict=True):
            if not source.visits:
                raise ValueError(
                    f"{snapshot.folder} has {source.records} clips, of which its weight leaves "
                    "none: give a larger one in input.weights, or leave the snapshot out"
                )
        # Number of the first record of each snapshot, and the total at the end.
        self._starts = np.cumsum([0, *(source.records for source in self.sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def visits(self) -> int:
        """Clips an epoch."""
        return sum(source.visits for source in self.sources)

    def locate(self, record: int) -> Location:
        """As `Snapshot.locate`."""
        number, first = self._snapshot_of(record)
        return self.snapshots[number].locate(record - first)

    def clip_ids(self, records: Int64[np.ndarray, " n"]) -> list[str]:
        """As `Snapshot.clip_ids`."""
        return self._gather(Snapshot.clip_ids, records)

    def read(self, records: Int64[np.ndarray, " n"]) -> list[bytes]:
        """As `Snapshot.read`."""
        return self._gather(Snapshot.read, records)

    def _snapshot_of(self, record: int) -> tuple[int, int]:
        """The snapshot that a record is in, and the number of its first record."""
        number = int(np.searchsorted(self._starts[1:-1], record, side="right"))
        return number, int(self._starts[number])

    def _gather(
        self, ask: Callable[[Snapshot, Int64[np.ndarray, " m"]], list], records: np.ndarray
    ) -> list:
        """Asks each snapshot for its share of the records; answers in the records' order."""
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
