"""Progress of a long job: a bar on a terminal, plain lines in a log file.

No library also writes plain lines. In a log, tqdm writes bars separated by carriage returns, and
rich writes one bar at the end. Either would replace only the three lines that draw the bar.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from pipelines.messages import say
from pipelines.snapshots import snapshot
from pipelines.storage import storage
from protos.v1.manifest_pb2 import ShardSummary

_LINE_EVERY_S = 10.0
_BAR_EVERY_S = 0.5
_LIST_EVERY_S = 5.0  # for buckets, where each list request costs a fee
_BAR = 24  # width of the bar, in characters


class Progress:
    """Display of a job's progress on stderr."""

    def __init__(self, job: str, unit: str) -> None:
        self._job, self._unit = job, unit
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._shown = self._began if not self._terminal else 0.0

    def update(self, done: int, total: int, detail: str = "", *, before: int = 0) -> None:
        """Show the current state, unless the last update is too recent.

        Updates are at least 0.5 s apart on a terminal and 10 s apart in a log.

        Args:
          done: finished units.
          total: all units.
          detail: additional text, shown after the counts.
          before: units that were finished when the job began. They do not count in its rate.
        """
        now = time.monotonic()
        if now - self._shown < (_BAR_EVERY_S if self._terminal else _LINE_EVERY_S):
            return
        self._shown = now
        counts = f"{done:,}/{total:,} {self._unit}{detail}"
        left = ""
        if before < done < total:
            seconds = round((now - self._began) / (done - before) * (total - done))
            left = f", {seconds // 60}:{seconds % 60:02d} left"
        if self._terminal:
            filled = _BAR * done // max(total, 1)
            bar = "█" * filled + "·" * (_BAR - filled)
            print(f"\r\x1b[2K{self._job} {bar} {counts}{left}", end="", file=sys.stderr, flush=True)
        else:
            say(f"{self._job}: {counts}{left}")

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


class Shards:
    """The finished shards of a build, found in its folder, for any engine."""

    def __init__(self, folder: str, stems: Sequence[str]) -> None:
        """Count the existing shards in `before` and `done`, but not in the records or rejects."""
        self._folder = folder
        self._awaited = {f"{stem}.json" for stem in stems}
        self._began = time.monotonic()
        self._records = self._rejects = 0
        there = self._there()
        self._awaited -= there
        self.before = self.done = len(there)

    def update(self) -> None:
        """Count the shards that were finished since the last call."""
        for name in sorted(self._there()):
            with contextlib.suppress(snapshot.SnapshotError):
                summary = snapshot.read_json(os.path.join(self._folder, name), ShardSummary)
                self._records += summary.records
                self._rejects += len(summary.rejects)
                self.done += 1
                self._awaited.remove(name)

    def _there(self) -> set[str]:
        try:
            return self._awaited & set(storage.names(self._folder))
        except OSError:  # The build itself reports errors of its folder.
            return set()

    @property
    def detail(self) -> str:
        """The records, rejects and throughput of this run, as text for the progress line."""
        rate = self._records / max(time.monotonic() - self._began, 1e-3)
        kept = f" ({self.before:,} reused)" if self.before else ""
        return f"{kept}, {self._records:,} clips, {self._rejects:,} rejects, {rate:.1f} clips/s"


@contextlib.contextmanager
def watching(folder: str, stems: Sequence[str]) -> Iterator[None]:
    """Show the progress of a build while the context is active."""
    progress = Progress("build", "shards")
    shards = Shards(folder, stems)
    every_s = _LIST_EVERY_S if storage.in_bucket(folder) else _BAR_EVERY_S
    ended = threading.Event()

    def watch() -> None:
        pause_s = every_s
        while not ended.wait(pause_s):
            began = time.monotonic()
            shards.update()
            # Listing a large folder is slow: use at most about 1/20 of the time for it.
            pause_s = max(every_s, 20 * (time.monotonic() - began))
            progress.update(shards.done, len(stems), shards.detail, before=shards.before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        progress.close()
