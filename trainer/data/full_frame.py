"""Whole test pictures, scaled but not cropped, for tasks that locate objects anywhere in them.

A picture becomes rows × columns of the model's patches. So pictures of different shapes come in
separate batches.
"""

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from trainer.configs.config import Config
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.stream import Request, stream


class Grid(NamedTuple):
    """Rows and columns of patches of a whole picture."""

    rows: int
    columns: int


def grid_of(height: int, width: int, config: Config) -> Grid:
    """Return the patch grid of a picture whose short side is scaled to `input.short_side`.

    Rows and columns are rounded to whole patches.

    >>> grid_of(256, 455, Config())
    Grid(rows=16, columns=28)
    """
    scale = config.input.short_side / min(height, width) / config.video.patch
    return Grid(max(1, round(height * scale)), max(1, round(width * scale)))


def full_frame_batches(
    snapshot: Snapshot,
    sizes: Mapping[int, tuple[int, int]],
    config: Config,
    at_once: int,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, "b t h w 3"]]]:
    """Yield the given records of a snapshot, grouped by grid.

    All batches of a grid have one size. Only the first n frames are valid, where n is the number of
    records.

    Args:
      snapshot: the records.
      sizes: height and width of each wanted record, by its number.
      config: the model's configuration.
      at_once: number of records in a batch.
      progress: called after each batch with the number of records done and in total.

    Yields:
      The record numbers, and their frames.

    Raises:
      SnapshotError: a record is damaged, or has too few frames.
    """
    from trainer.data.decode import full_frame_clip

    kept, wanted = snapshot.manifest.config.frames_per_clip, config.video.frames
    if kept < wanted:
        raise SnapshotError(
            f"{snapshot.folder} has {kept} frames per clip, but the model takes {wanted}: build "
            f"the snapshot with --frames {wanted}"
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
        for step, clips, _ in stream(snapshot, requests, full_frame_clip, config=config, grid=grid):
            frames: Any = clips["frames"]
            yield np.array(parts[step], np.int64), frames
            done += len(parts[step])
            progress(done, len(sizes))
