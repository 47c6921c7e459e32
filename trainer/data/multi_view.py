"""Multiple views of test videos: consecutive clips, and crops side by side."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from trainer.configs.config import Config
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.stream import Request, stream
from trainer.data.types import CLIPS_AT_ONCE, Progress


def view_batches(
    snapshot: Snapshot, config: Config, *, clips: int, crops: int, progress: Progress
) -> Iterator[tuple[UInt8[np.ndarray, "b t h w 3"], int]]:
    """Yield the views of every record, consecutively for each record, in the snapshot's order.

    Clip i of n has T frames spread evenly over the i-th of n equal segments of the record's frames.
    Crops lie evenly along the longer side, from edge to edge. A single crop is central.

    All batches have one size: only the first `count` views of each are valid.

    Args:
      snapshot: the records.
      config: the model's configuration.
      clips: number of clips per record.
      crops: number of crops per clip.
      progress: called after each batch with the number of views done and in total.

    Yields:
      Frames, and count.

    Raises:
      SnapshotError: the records have too few frames, or one is damaged.
    """
    from trainer.data.decode import view_clip

    kept, wanted = snapshot.manifest.config.frames_per_clip, clips * config.video.frames
    if kept < wanted:
        raise SnapshotError(
            f"{snapshot.folder} has {kept} frames per clip, but {clips} clips of "
            f"{config.video.frames} frames need {wanted}: build the snapshot with --frames "
            f"{wanted}, or use fewer clips"
        )
    if not len(snapshot):
        raise SnapshotError(f"{snapshot.folder} has no clip: all its rows were rejected")
    views = np.array([(clip, crop) for clip in range(clips) for crop in range(crops)])
    total = len(snapshot) * len(views)
    size = min(CLIPS_AT_ONCE, total)

    def requests() -> Iterator[Request]:
        for step, first in enumerate(range(0, total, size)):
            numbers = np.minimum(np.arange(first, first + size), total - 1)
            yield Request(step, numbers // len(views), views[numbers % len(views)])

    decoded = stream(snapshot, requests(), view_clip, config=config, clips=clips, crops=crops)
    for step, answer, _ in decoded:
        count = min(size, total - step * size)
        yield answer["frames"], count
        progress(step * size + count, total)
