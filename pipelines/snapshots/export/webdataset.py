"""Export to WebDataset, https://github.com/webdataset/webdataset: one tar file per shard.

The files of a sample are adjacent and share their name up to its first dot.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np

from pipelines.snapshots import fields, snapshot
from pipelines.snapshots.croissant import documents
from pipelines.snapshots.croissant.documents import UNSTATED, About, Part
from pipelines.snapshots.export import parquet_file, shards
from pipelines.snapshots.export.shards import Job
from pipelines.snapshots.fields import FIELDS, Field
from pipelines.storage import storage
from protos.v1.clip_pb2 import (
    FRAME_ENCODING_JPEG,
    FRAME_ENCODING_PNG,
    FRAME_ENCODING_RAW,
    Clip,
)
from protos.v1.manifest_pb2 import FileEntry, Manifest

_FIELDS = tuple(field for field in FIELDS if field.name != "frames")
_COLUMNS = (
    Field("key", fields.STRING, "Key of the sample in its tar file."),
    Field("shard", fields.STRING, "Name of the tar file."),
    *_FIELDS,
)
_SUFFIXES = {FRAME_ENCODING_JPEG: "jpg", FRAME_ENCODING_PNG: "png"}


def write(
    folder: str,
    manifest: Manifest,
    out: str,
    about: About = UNSTATED,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write each shard as a tar file into the empty folder `out`, with tables and croissant.json.

    A shard without records becomes an empty tar file, so that a pattern of all shards matches
    every file. A Parquet file per shard has the samples' fields without their frames: readers of
    Croissant, which cannot parse JSON in tar files, read it instead.

    Raises:
      SnapshotError: a file is damaged, or the folder is not empty.
      WorkerDiedError: a worker process was killed.
    """
    mark = {"format": "webdataset"} | shards.identity(manifest) | about.stated()
    with shards.exporting(out, mark, [documents.NAME], ["shard-", "samples-"]):
        jobs = shards.jobs(folder, manifest, out, suffix="tar")
        pairs = shards.each(_write_shard, jobs, workers, progress)
        files = [tar for tar, _ in pairs] + [table for _, table in pairs]
        part = Part(manifest.config.split.part, folder, manifest, files)
        snapshot.write_file(out, documents.NAME, documents.of_webdataset(part, _COLUMNS, about))


def _write_shard(job: Job) -> tuple[FileEntry, FileEntry]:
    """Write a tar file, and the table of its samples."""
    folder, name = os.path.split(job.path)
    table = f"samples{name.removeprefix('shard').removesuffix('.tar')}.parquet"
    with (
        storage.NewFile(job.path) as file,
        tarfile.open(fileobj=cast(BinaryIO, file), mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        rows = (_add(tar, clip, name) for clip in shards.clips(job))
        written = parquet_file.write(os.path.join(folder, table), _COLUMNS, rows)
    return FileEntry(name=name, bytes=file.bytes, sha256=file.sha256), written.file


def _add(tar: tarfile.TarFile, clip: Clip, shard: str) -> dict[str, Any]:
    """Add a sample's files to its tar file, and return its row in the table."""
    for name, data in _files(clip):
        # TarInfo's defaults (no owner, time 0) give the same bytes in every run.
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    row = {field.name: fields.value(clip, field) for field in _FIELDS}
    return {"key": key(clip.clip_id), "shard": shard} | row


def key(clip_id: str) -> str:
    """Return a sample's key: the clip_id with percent-encoded dots and slashes.

    WebDataset ends a key at the first dot. No clip_id contains "%2E", so the keys are unique.

    >>> key("a.b_0_1000000_ca978112")
    'a%2Eb_0_1000000_ca978112'
    """
    return clip_id.replace(".", "%2E").replace("/", "%2F")


def _files(clip: Clip) -> Iterator[tuple[str, bytes]]:
    """Yield a sample's files: <key>.txt, <key>.json and <key>.<frame>.jpg, .png or .npy if raw."""
    stem = key(clip.clip_id)
    yield f"{stem}.txt", clip.caption.encode()
    fields = {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "start_us": clip.start_us,
        "end_us": clip.end_us,
        "frame_time_us": [*clip.frame_time_us],
        "noun_chunks": [[chunk.text, chunk.start, chunk.end] for chunk in clip.noun_chunks],
        "labels": [*clip.labels],
        "source_row": clip.source_row,
    }
    annotations = {
        "captions": [*clip.captions],
        "questions": [[q.question_id, q.text, q.answer, q.type] for q in clip.questions],
        "segments": [[one.start_us, one.end_us, one.label] for one in clip.segments],
        "boxes": [
            [box.time_us, [box.x1, box.y1, box.x2, box.y2], [*box.labels], box.person_id, box.score]
            for box in clip.boxes
        ],
        "video_duration_us": clip.video_duration_us,
    }
    fields |= {name: value for name, value in annotations.items() if value}
    yield f"{stem}.json", json.dumps(fields, ensure_ascii=False).encode()
    for number, frame in enumerate(clip.frames):
        if clip.frame_encoding == FRAME_ENCODING_RAW:  # WebDataset's own reader decodes .npy.
            pixels = np.frombuffer(frame, np.uint8).reshape(clip.height, clip.width, 3)
            array = io.BytesIO()
            np.save(array, pixels)
            yield f"{stem}.{number:04d}.npy", array.getvalue()
        else:
            yield f"{stem}.{number:04d}.{_SUFFIXES[clip.frame_encoding]}", frame
