"""Export to Parquet files that Hugging Face `datasets` loads with all features and splits.

https://huggingface.co/docs/datasets/repository_structure. A column is a field of the record, and
a frame is an image of the library: its file's bytes, and no path.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.decoding import frame_codec
from pipelines.snapshots import fields, snapshot
from pipelines.snapshots.croissant import documents
from pipelines.snapshots.croissant.documents import UNSTATED, About, Part
from pipelines.snapshots.export import huggingface, parquet_file, shards
from pipelines.snapshots.export.parquet_file import Written
from pipelines.snapshots.export.shards import Job
from pipelines.snapshots.fields import FIELDS
from protos.v1.clip_pb2 import FRAME_ENCODING_PNG, FRAME_ENCODING_RAW, Clip
from protos.v1.manifest_pb2 import Manifest


class Split(NamedTuple):
    """A snapshot that becomes a split of the data set."""

    name: str
    folder: str
    manifest: Manifest


def write(
    splits: Sequence[Split],
    out: str,
    about: About = UNSTATED,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write each shard as a Parquet file into the empty folder `out`, with two descriptions.

    README.md is a data set card with the metadata that `datasets` reads, and croissant.json is for
    Croissant. Raw frames become PNGs of the same pixels. A shard without records becomes a file
    without rows.

    Args:
      splits: the snapshots, each with another name.
      out: the folder.
      about: name and license of the data set.
      workers: number of processes, each of which writes one shard at a time.
      progress: called with the number of written shards and the total number.

    Raises:
      SnapshotError: a file is damaged, the folder is not empty, two splits have one name, or a
        snapshot has no record.
      WorkerDiedError: a worker process was killed.
    """
    _check(splits)
    mark = {
        "format": "parquet",
        "splits": [[one.name, shards.identity(one.manifest)] for one in splits],
    } | about.stated()
    others = (huggingface.NAME, documents.NAME)
    prefixes = [f"{one.name}-" for one in splits]
    with shards.exporting(out, mark, others, prefixes):
        jobs = [
            shards.jobs(one.folder, one.manifest, out, prefix=one.name, suffix="parquet")
            for one in splits
        ]
        written = iter(shards.each(_write_shard, [*itertools.chain(*jobs)], workers, progress))
        parts = [
            _part(one, [*itertools.islice(written, len(own))])
            for one, own in zip(splits, jobs, strict=True)
        ]
        snapshot.write_file(out, documents.NAME, documents.of_parquet(parts, about))
        snapshot.write_file(out, huggingface.NAME, huggingface.card(parts, about))


def _check(splits: Sequence[Split]) -> None:
    seen: dict[str, str] = {}
    for one in splits:
        if one.name in seen:
            raise snapshot.SnapshotError(
                f"{seen[one.name]!r} and {one.folder!r} are both split {one.name!r}: give a "
                "--split for each snapshot, in their order"
            )
        seen[one.name] = one.folder
        if not one.manifest.counts.records:
            raise snapshot.SnapshotError(
                f"{one.folder!r} has no record, and `datasets` loads no empty split: leave it out"
            )


def _part(split: Split, written: Sequence[Written]) -> Part:
    files = [one.file for one in written]
    return Part(split.name, split.folder, split.manifest, files, sum(one.bytes for one in written))


def _write_shard(job: Job) -> Written:
    return parquet_file.write(job.path, FIELDS, _rows(shards.clips(job)))


def _rows(clips: Iterator[Clip]) -> Iterator[dict[str, Any]]:
    for clip in clips:
        row = {field.name: fields.value(clip, field) for field in FIELDS}
        row["frames"] = [{"bytes": image, "path": None} for image in _images(clip)]
        yield row


def _images(clip: Clip) -> Sequence[bytes]:
    """Return the frames as files. Raw frames become PNGs, which keep every pixel."""
    if clip.frame_encoding != FRAME_ENCODING_RAW:
        return clip.frames
    pixels = np.frombuffer(b"".join(clip.frames), np.uint8)
    shape = (len(clip.frames), clip.height, clip.width, 3)
    return frame_codec.encode(pixels.reshape(shape), FRAME_ENCODING_PNG, 0)
