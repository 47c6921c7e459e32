"""What is known of a snapshot's clips besides their frames: captions, questions, labels."""

import numpy as np

from protos.v1 import clip_pb2
from trainer.data.snapshot import Readable, parse_clip

# Records in memory at once, frames included.
_AT_ONCE = 256


def read_annotations(records: Readable) -> list[clip_pb2.Clip]:
    """Every record, its frames left out, in their order.

    Each record is read whole: a benchmark of ten thousand videos of 32 frames takes a minute.

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
    """A clip's descriptions: one, or all that the source has.

    >>> captions_of(clip_pb2.Clip(caption="a cat")), captions_of(
    ...     clip_pb2.Clip(caption="a cat", captions=["a cat", "it sits"])
    ... )
    (('a cat',), ('a cat', 'it sits'))
    """
    return tuple(clip.captions) or (clip.caption,)
