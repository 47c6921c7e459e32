"""Record of the corrupt clips that a run replaced (`input.on_corrupt=skip`): skipped_clips.jsonl.

A line is {"step", "row", "record", "replacement", "reason"}. "step" counts updates as metrics.jsonl
does, this one included. "row" is the index in the global batch. Records are numbered through the
run's snapshots. A replacement that is corrupt has a line of its own, after the first.
"""

import collections
import json

from trainer import progress
from trainer.data.stream import Skipped
from trainer.distributed import multihost
from trainer.runs.run_path import RunPath
from trainer.training.jsonl_log import Lines

NAME = "skipped_clips.jsonl"


class SkippedClips:
    """Writer of skipped_clips.jsonl for all processes of a run."""

    def __init__(self, run: RunPath, *, start: int, writes: bool) -> None:
        """Open the file, and remove the records of steps after `start`.

        Args:
          run: the run's folder.
          start: number of steps done so far.
          writes: True in the process that writes the files of the whole run.
        """
        self._lines = Lines(run / NAME, start) if writes else None
        self._waiting: collections.deque[Skipped] = collections.deque()

    def add(self, skipped: Skipped) -> None:
        """Report a replaced clip of this process; any thread may call it, in order of steps."""
        self._waiting.append(skipped)
        progress.warn(f"svilm-train: skipped a corrupt clip: {skipped.message}")

    def write(self, done: int) -> int:
        """Write the clips that were replaced in the first `done` steps; all processes must call it.

        Returns:
          The number of clips that all processes wrote.
        """
        ours = []
        while self._waiting and self._waiting[0].step < done:  # batches are prefetched
            step, row, record, replacement, reason = self._waiting.popleft()
            line = {"step": step + 1, "row": row, "record": record, "replacement": replacement}
            ours.append(json.dumps(line | {"reason": reason}))
        written = multihost.sum_over_processes(len(ours))
        if written:
            every = multihost.gather_from_processes(ours)
            if self._lines:
                for line in every:
                    self._lines.append(json.loads(line))
                self._lines.flush()
        return written
