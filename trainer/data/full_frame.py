"""Test pictures in whole, for tasks that look for things anywhere in them: scaled, nothing cut off.

A picture becomes rows × columns of the model's patches, so that pictures of several shapes come in
batches of their own.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from trainer.configs.config import Config
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.stream import Request, stream


class Grid(NamedTuple):
    """Patches that a whole picture is."""

    rows: int
    columns: int


def grid_of(height: int, width: int, config: Config) -> Grid:
    """The patches of a picture whose short side is scaled to `input.short_side`, to whole ones.

    >>> grid_of(256, 455, Config())
    Grid(rows=16, columns=28)
    """
    scale = config.input.short_side / min(height, width) / config.video.patch
    return Grid(max(1, round(height * scale)), max(1, round(width * scale)))


def whole_batches(
    snapshot: Snapshot,
    sizes: Mapping[int, tuple[int, int]],
    config: Config,
    at_once: int,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, "b t h w 3"]]]:
    """Yields some records of a snapshot, those of one grid after those of another.

    All batches of a grid have one size: of each only the first n count, as there are records.

    Args:
      snapshot: the records.
      sizes: height and width of those that are wanted, by their numbers.
      config: of the model.
      at_once: records in a batch.
      progress: told of each batch, in records.

    Yields:
      Which records, and their frames.

    Raises:
      SnapshotError: a record is damaged, or has too few frames.
    """
    from trainer.data.decode import whole_clip

    kept, wanted = snapshot.manifest.config.frames_per_clip, config.video.frames
    if kept < wanted:
        raise SnapshotError(
            f"{snapshot.folder} has {kept} frames a clip, the model wants {wanted}: build the "
            f"snapshot with --frames {wanted}"
        )
    by_grid: dict[Grid, list[int]] = collections.defaultdict(list)
    for record, (height, width) in sizes.items():
        by_grid[grid_of(height, width, config)].append(record)
    done = 0
    for grid, records in by_grid.items():
        size = min(at_once, len(records))
        parts = [records[first : first + size] for first in range(0, len(records), size)]
        filled = np.array([(part + [part[-1]] * size)[:size] for part in parts], np.int64)
        unused = np.zeros((size, 2), np.int64)
        requests = [Request(step, rows, unused) for step, rows in enumerate(filled)]
        decode = functools.partial(whole_clip, config=config, grid=grid)
        for step, clips, _ in stream(snapshot, requests, decode):
            frames: Any = clips["frames"]
            yield np.array(parts[step], np.int64), frames
            done += len(parts[step])
            progress(done, len(sizes))
