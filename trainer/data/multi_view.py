"""Test videos seen several times: as clips that follow one another, and as crops side by side."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from trainer.configs.config import Config
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.stream import Request, stream
from trainer.data.types import CLIPS_AT_ONCE, Progress


def view_batches(
    snapshot: Snapshot, config: Config, *, clips: int, crops: int, progress: Progress
) -> Iterator[tuple[UInt8[np.ndarray, "b t h w 3"], int]]:
    """Yields the views of every record, a record's one behind another, in the snapshot's order.

    Clip i of n has T frames spread over the i-th of n equal stretches of the record's frames; crops
    lie evenly along the longer side, from edge to edge, or one in the middle.

    All batches have one size: of each only the first `count` views count.

    Args:
      snapshot: the records.
      config: of the model.
      clips: a record.
      crops: a clip.
      progress: told of each batch, in views.

    Yields:
      Frames, and count.

    Raises:
      SnapshotError: the records have too few frames, or one is damaged.
    """
    from trainer.data.decode import view_clip

    kept, wanted = snapshot.manifest.config.frames_per_clip, clips * config.video.frames
    if kept < wanted:
        raise SnapshotError(
            f"{snapshot.folder} has {kept} frames a clip, {clips} clips of {config.video.frames} "
            f"want {wanted}: build the snapshot with --frames {wanted}, or use fewer clips"
        )
    if not len(snapshot):
        raise SnapshotError(f"{snapshot.folder} holds no clip: all its rows were rejected")
    views = np.array([(clip, crop) for clip in range(clips) for crop in range(crops)])
    total = len(snapshot) * len(views)
    size = min(CLIPS_AT_ONCE, total)

    def requests() -> Iterator[Request]:
        for step, first in enumerate(range(0, total, size)):
            numbers = np.minimum(np.arange(first, first + size), total - 1)
            yield Request(step, numbers // len(views), views[numbers % len(views)])

    def decode(record: Any, view: Any) -> dict[str, Any]:
        return view_clip(record, view, config, clips=clips, crops=crops)

    for step, answer, _ in stream(snapshot, requests(), decode):
        count = min(size, total - step * size)
        yield answer["frames"], count
        progress(step * size + count, total)
