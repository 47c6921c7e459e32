"""Arguments of the disk cache for snapshots in buckets (trainer/data/cache.py)."""

import argparse
import contextlib
import os
from collections.abc import Iterator

from trainer.data import cache
from trainer.progress import say, warn

# The commands that read snapshots.
COMMANDS = (
    *("pretrain", "finetune", "evaluate", "search", "report", "figures", "export", "embed"),
    *("exposure", "study"),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add --cache and --cache-size to a command."""
    group = parser.add_argument_group("cache of snapshots in buckets")
    group.add_argument(
        "--cache",
        metavar="DIR",
        help="keep what is read from snapshots in buckets in this folder, on a disk of this host; "
        f"processes and runs may share it (default: ${cache.FOLDER_VARIABLE}, else none)",
    )
    group.add_argument(
        "--cache-size",
        metavar="SIZE",
        help="maximum size of the cache, such as 200GB; shards that were not used for the longest "
        f"time are removed (default: ${cache.SIZE_VARIABLE})",
    )


@contextlib.contextmanager
def used(arguments: argparse.Namespace) -> Iterator[None]:
    """Use the cache for one command and the processes that it starts, and print its counts.

    Raises:
      CacheError: the cache cannot be used.
    """
    given = {cache.FOLDER_VARIABLE: arguments.cache, cache.SIZE_VARIABLE: arguments.cache_size}
    before = {name: os.environ.get(name) for name in given}
    try:
        _set({name: value for name, value in given.items() if value is not None})
        opened = cache.from_environment()
        start = opened.counts if opened else cache.Counts()
        yield
        if opened:
            _print(opened, start, asked=arguments.cache is not None)
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _print(opened: cache.Cache, start: cache.Counts, *, asked: bool) -> None:
    """Print the reads since `start`."""
    done = cache.Counts(*(now - then for now, then in zip(opened.counts, start, strict=True)))
    if done.hits or done.misses:
        say(
            f"cache: {done.hits:,} reads ({done.hit_bytes / 1e6:,.1f} MB) from {opened.folder}, "
            f"{done.misses:,} ({done.missed_bytes / 1e6:,.1f} MB) from buckets"
        )
    elif asked and not opened.serves:
        warn("cache: this command read no snapshot from a bucket: leave --cache out")
