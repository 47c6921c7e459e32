"""Annotations of a snapshot's clips, all fields but the frames: captions, questions, labels."""

import numpy as np

from protos.v1 import clip_pb2
from trainer.data.snapshot import Readable, parse_clip

# Number of records, frames included, in memory at once.
_AT_ONCE = 256


def read_annotations(records: Readable) -> list[clip_pb2.Clip]:
    """Return every record without its frames, in the snapshot's order.

    Each record is read whole. A benchmark of ten thousand videos of 32 frames takes a minute.

    Raises:
      SnapshotError: a record is damaged.
    """
    clips = []
    for first in range(0, len(records), _AT_ONCE):
        some = np.arange(first, min(first + _AT_ONCE, len(records)))
        for number, data in zip(some, records.read(some), strict=True):
            clip = parse_clip(records, int(number), data)
            clip.ClearField("frames")
            clips.append(clip)
    return clips


def captions_of(clip: clip_pb2.Clip) -> tuple[str, ...]:
    """Return a clip's captions: all of the source's captions, or the only one.

    >>> captions_of(clip_pb2.Clip(caption="a cat")), captions_of(
    ...     clip_pb2.Clip(caption="a cat", captions=["a cat", "it sits"])
    ... )
    (('a cat',), ('a cat', 'it sits'))
    """
    return tuple(clip.captions) or (clip.caption,)
