"""Splits of a data set by video, such as train and test: snapshots that share no video."""

import hashlib
from collections.abc import Iterator, Sequence

from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import Reject, Split, SplitPart
from protos.video_id import video_key

_NAMES = {2: ("train", "test"), 3: ("train", "validation", "test")}
_HASHES = 1 << 64


def splits(shares: Sequence[float], seed: int) -> Iterator[Split]:
    """Yield the split of each part, in order, for two or three `shares` that add up to 1.

    >>> [split.part for split in splits([0.8, 0.1, 0.1], seed=0)]
    ['train', 'validation', 'test']
    """
    names = _NAMES[len(shares)]
    parts = [SplitPart(name=name, share=share) for name, share in zip(names, shares, strict=True)]
    for name in names:
        yield Split(part=name, seed=seed, parts=parts)


def part_of(video_id: str, split: Split) -> str:
    """Return the name of the part that contains a video.

    An id's file extension and its Unicode normalization make no difference.

    >>> split = next(splits([0.5, 0.5], seed=0))
    >>> part_of("dQw4w9WgXcQ", split), part_of("dQw4w9WgXcQ.mp4", split), part_of("clip 1", split)
    ('train', 'train', 'test')
    """
    name = video_key(video_id)
    digest = hashlib.sha256(
        f"split {split.seed}\n{name}".encode(errors="backslashreplace")
    ).digest()
    place, end = int.from_bytes(digest[:8]), 0.0
    for part in split.parts[:-1]:
        end += part.share
        if place < round(end * _HASHES):
            return part.name
    return split.parts[-1].name


def has(row: ClipRequest | Reject, split: Split) -> bool:
    """Return whether a row belongs to the snapshot's part.

    Rows without a video id belong to the first part.

    >>> train, test = splits([0.9, 0.1], seed=0)
    >>> has(Reject(reason="row_columns"), train), has(Reject(reason="row_columns"), test)
    (True, False)
    """
    part = part_of(row.video_id, split) if row.video_id else split.parts[0].name
    return part == split.part


def described(split: Split) -> str:
    """Return a readable description of the part and its split.

    >>> described(next(splits([0.9, 0.1], seed=7)))
    'train of train 0.9, test 0.1, by video, seed 7'
    """
    parts = ", ".join(f"{part.name} {part.share:g}" for part in split.parts)
    return f"{split.part} of {parts}, by video, seed {split.seed}"
