"""The clips that a run selects by columns: the same in all processes, and described to the user."""

from collections.abc import Iterator

import numpy as np

from trainer.configs.config import Config
from trainer.data.columns import ColumnError
from trainer.data.mixture import Mixture
from trainer.distributed import multihost


def check_same_everywhere(clips: Mixture) -> None:
    """Check that all processes of a run read the same columns.

    Raises:
      ColumnError: a process read other values, in every process.
    """
    hashes = [str(selection.hashes()) for selection in clips.selections if selection.columns]
    if hashes and len(set(multihost.gather_from_processes([str(hashes)]))) > 1:
        raise ColumnError(
            "the processes read columns with different values, so they would train on different "
            "clips: give all of them the same files with --column"
        )


def describe(clips: Mixture, config: Config) -> Iterator[str]:
    """Yield a line for each snapshot of which a run selects clips."""
    where, batches = config.input.where, clips.visits // config.batch
    for number, (snapshot, selection, source) in enumerate(
        zip(clips.snapshots, clips.selections, clips.sources, strict=True)
    ):
        if not selection.columns:
            continue
        count, of = selection.count(len(snapshot)), len(snapshot)
        line = f"{snapshot.folder}: {count:,} of {of:,} clips"
        if where:
            line += f" (where {where[number if len(where) > 1 else 0]})"
        if source.ends is not None:
            most = np.diff(source.ends, prepend=0).max() / source.ends[-1] * source.visits
            line += f", weighted: at most {most:.3g} visits of a clip per epoch"
            if most > batches:
                line += f", more than an epoch's {batches:,} batches, so it is its own negative"
        yield line
