"""Annotations of a snapshot's clips, all fields but the frames: captions, questions, labels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from protos.v1 import clip_pb2
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Readable, SnapshotError, parse_clip

# Number of records, frames included, in memory at once.
_AT_ONCE = 256


def read_annotations(
    records: Readable, numbers: Int64[np.ndarray, " n"] | None = None
) -> list[clip_pb2.Clip]:
    """Return records without their frames.

    Each record is read whole. A benchmark of ten thousand videos of 32 frames takes a minute.

    Args:
      records: the records of a snapshot or of a mixture.
      numbers: the numbers of the records to return; None returns all, in the snapshot's order.

    Raises:
      SnapshotError: a record is damaged.
    """
    if numbers is None:
        numbers = np.arange(len(records))
    clips = []
    for first in range(0, len(numbers), _AT_ONCE):
        some = numbers[first : first + _AT_ONCE]
        for number, data in zip(some, records.read(some), strict=True):
            clip = parse_clip(records, int(number), data)
            clip.ClearField("frames")
            clips.append(clip)
    return clips


def read_texts(mixture: Mixture, at_most: int) -> list[str]:
    """Return captions and noun prompts for training a vocabulary, spread over the mixture.

    Args:
      mixture: the clips to train on.
      at_most: maximum number of records to read. Each is read whole, frames included.
    """
    records = text_records(mixture, at_most)
    texts = []
    for some in np.array_split(records, -(-len(records) // 256) or 1):
        for number, data in zip(some, mixture.read(some), strict=True):
            clip = parse_clip(mixture, int(number), data)
            texts.append(clip.caption)
            texts.extend(prompt for chunk in clip.noun_chunks for prompt in chunk.prompts)
    return texts


def text_records(mixture: Mixture, at_most: int) -> Int64[np.ndarray, " n"]:
    """Return the records whose texts `read_texts` returns: some of those to train on."""
    chosen = mixture.chosen()
    count = len(mixture) if chosen is None else len(chosen)
    some = min(at_most, count)
    places = np.arange(some) * count // max(some, 1)
    return places if chosen is None else chosen[places]


def captions_of(clip: clip_pb2.Clip) -> tuple[str, ...]:
    """Return a clip's captions: all of the source's captions, or the only one.

    >>> captions_of(clip_pb2.Clip(caption="a cat")), captions_of(
    ...     clip_pb2.Clip(caption="a cat", captions=["a cat", "it sits"])
    ... )
    (('a cat',), ('a cat', 'it sits'))
    """
    return tuple(clip.captions) or (clip.caption,)


def check_captions(folder: str, captions: Sequence[str]) -> None:
    """Check that retrieval of clips by their captions has a meaning.

    Args:
      folder: the snapshot's folder, for messages.
      captions: the captions of all clips that are searched.

    Raises:
      SnapshotError: a caption is empty, or all captions are equal.

    >>> check_captions("test", ["a cat", "a dog", "a cat"])
    """
    if empty := sum(not caption for caption in captions):
        raise SnapshotError(
            f"{folder}: {empty:,} of {len(captions):,} captions are empty, but retrieval compares "
            "clips with captions: give a snapshot whose clips all have captions"
        )
    if len(set(captions)) < 2:
        raise SnapshotError(
            f"{folder}: all captions ({len(captions):,}) are equal, but retrieval needs two or "
            "more: give a snapshot with different captions"
        )
