"""A snapshot as WebDataset shards, for other trainers: a tar file a shard.

Source of the form: https://github.com/webdataset/webdataset — files of one sample follow one
another, and share their name up to its first dot.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipelines import processes, records, snapshot
from pipelines.records import Place
from protos import contract
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import Manifest


class _Job(NamedTuple):
    """A shard to write."""

    folder: str
    manifest: Manifest
    out: str
    shard: int


def webdataset(
    folder: str,
    manifest: Manifest,
    out: str,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes each shard with records as a tar file into the folder `out`, which must be empty.

    Raises:
      SnapshotError: a file is damaged, or the folder holds something.
      WorkerDiedError: a process was killed.
    """
    os.makedirs(out, exist_ok=True)
    if names := os.listdir(out):
        raise snapshot.SnapshotError(f"--out {out!r} holds {min(names)!r}: choose an empty folder")
    shards = [shard for shard, entry in enumerate(manifest.shards) if entry.records]
    jobs = [_Job(folder, manifest, out, shard) for shard in shards]
    for done, _ in enumerate(processes.each(_write, jobs, workers), 1):
        progress(done, len(jobs))


def _write(job: _Job) -> None:
    stem = contract.shard_name(job.shard, len(job.manifest.shards))
    places = [Place(job.shard, i) for i in range(job.manifest.shards[job.shard].records)]
    path = os.path.join(job.out, f"{stem}.tar")
    with tarfile.open(f"{path}.unfinished", "x", format=tarfile.GNU_FORMAT) as tar:
        for clip in records.read(job.folder, job.manifest, places):
            for name, data in _files(clip):
                member = tarfile.TarInfo(name)  # no owner, and the same time in every run
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    os.replace(f"{path}.unfinished", path)


def _files(clip: Clip) -> Iterator[tuple[str, bytes]]:
    """A sample's files: <key>.txt, <key>.json and <key>.<frame>.jpg."""
    key = clip.clip_id.replace(".", "-").replace("/", "-")
    yield f"{key}.txt", clip.caption.encode()
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
    yield f"{key}.json", json.dumps(fields, ensure_ascii=False).encode()
    for number, frame in enumerate(clip.frames):
        yield f"{key}.{number:04d}.jpg", frame
