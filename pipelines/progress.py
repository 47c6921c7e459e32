"""Progress of a long job: a bar on a terminal, plain lines in a log."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

from pipelines import snapshot, storage
from protos import contract
from protos.v1.manifest_pb2 import ShardSummary

_LINE_EVERY_S = 10.0
_BAR_EVERY_S = 0.5
_LIST_EVERY_S = 5.0  # in a bucket, which asks a fee for a list
_BAR = 24  # characters


class Progress:
    """Shows how much of a job is done, on stderr."""

    def __init__(self, job: str, unit: str) -> None:
        self._job, self._unit = job, unit
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._shown = self._began if not self._terminal else 0.0

    def update(self, done: int, total: int, detail: str = "") -> None:
        """Shows a state, unless the last one is too recent."""
        now = time.monotonic()
        if now - self._shown < (_BAR_EVERY_S if self._terminal else _LINE_EVERY_S):
            return
        self._shown = now
        counts = f"{done:,}/{total:,} {self._unit}{detail}"
        left = ""
        if 0 < done < total:
            seconds = round((now - self._began) / done * (total - done))
            left = f", {seconds // 60}:{seconds % 60:02d} left"
        if self._terminal:
            filled = _BAR * done // max(total, 1)
            bar = "█" * filled + "·" * (_BAR - filled)
            print(f"\r\x1b[2K{self._job} {bar} {counts}{left}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{self._job}: {counts}{left}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Removes the bar."""
        if self._terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def watching(folder: str, num_shards: int) -> Iterator[None]:
    """Shows the progress of a build by looking for finished shards, whatever engine makes them."""
    progress = Progress("build", "shards")
    ended = threading.Event()

    def watch() -> None:
        names = {f"{contract.shard_name(shard, num_shards)}.json" for shard in range(num_shards)}
        records = rejects = done = 0
        began = time.monotonic()
        every_s = _LIST_EVERY_S if storage.in_bucket(folder) else _BAR_EVERY_S
        while not ended.wait(every_s):
            try:
                there = names & set(storage.names(folder))
            except OSError:  # whoever writes there will tell
                continue
            for name in sorted(there):
                with contextlib.suppress(snapshot.SnapshotError):
                    summary = snapshot.read_json(os.path.join(folder, name), ShardSummary)
                    records += summary.records
                    rejects += len(summary.rejects)
                    done += 1
                    names.remove(name)
            rate = records / (time.monotonic() - began)
            detail = f", {records:,} clips, {rejects:,} rejects, {rate:.1f} clips/s"
            progress.update(done, num_shards, detail)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        progress.close()
