"""Exports of a snapshot's records to other trainers' formats, one file per shard.

WebDataset, https://github.com/webdataset/webdataset: the files of a sample are adjacent and share
their name up to its first dot. SequenceExample: a tf.train.SequenceExample with MediaSequence's
keys, https://github.com/google-ai-edge/mediapipe, mediapipe/util/sequence, which DMVR reads.
"""

import contextlib
import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from pipelines.decoding import frame_codec
from pipelines.processes import pool
from pipelines.snapshots import records, snapshot, verify
from pipelines.snapshots.records import Place
from pipelines.storage import storage
from protos import contract, tfrecord
from protos.reading import reading
from protos.v1.clip_pb2 import (
    FRAME_ENCODING_JPEG,
    FRAME_ENCODING_PNG,
    FRAME_ENCODING_RAW,
    Clip,
)
from protos.v1.manifest_pb2 import Manifest
from protos.v1.sequence_example_pb2 import (
    BytesList,
    Feature,
    FeatureList,
    FeatureLists,
    Features,
    Int64List,
    SequenceExample,
)

LABEL_MAP = "label_map.csv"
# The mark exists until an export is finished. It identifies the export, so that only the same
# command may restart it.
_MARK = "export.json"
_UNFINISHED = storage.UNFINISHED

_SUFFIXES = {FRAME_ENCODING_JPEG: "jpg", FRAME_ENCODING_PNG: "png"}


class _Job(NamedTuple):
    """A shard to write."""

    folder: str
    out: str
    shard: int
    labels: Mapping[str, int]


def webdataset(
    folder: str,
    manifest: Manifest,
    out: str,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write each shard as a tar file into the empty folder `out`.

    A shard without records becomes an empty tar file, so that a pattern of all shards matches
    every file.

    Raises:
      SnapshotError: a file is damaged, or the folder is not empty.
      WorkerDiedError: a worker process was killed.
    """
    with _exporting(out, manifest, "webdataset"):
        _each_shard(_write_tar, folder, manifest, out, {}, workers, progress)


def sequence_examples(
    folder: str,
    manifest: Manifest,
    out: str,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write each shard as a TFRecord file of SequenceExamples into the empty folder `out`.

    Labels are numbered alphabetically over the whole snapshot. label_map.csv lists them in this
    order, one label per row.

    Raises:
      SnapshotError: a file is damaged, the folder is not empty, or the frames are raw, which
        SequenceExamples do not support.
      WorkerDiedError: a worker process was killed.
    """
    if manifest.config.frame_encoding == FRAME_ENCODING_RAW:
        raise snapshot.SnapshotError(
            f"{folder!r} has raw frames, which SequenceExamples do not support: export it as "
            "webdataset, or build it with --encoding png"
        )
    with _exporting(out, manifest, "sequence-example"):
        names: set[str] = set()
        for _, of_shard in pool.each(
            _labels,
            [_Job(folder, out, shard, {}) for shard in range(len(manifest.shards))],
            workers,
        ):
            names |= of_shard
        ordered = sorted(names)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([name] for name in ordered)
        labels = {name: number for number, name in enumerate(ordered)}
        _each_shard(_write_examples, folder, manifest, out, labels, workers, progress)
        snapshot.write_file(out, LABEL_MAP, text.getvalue().encode())


def _each_shard(
    write: Callable[[_Job], None],
    folder: str,
    manifest: Manifest,
    out: str,
    labels: Mapping[str, int],
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    jobs = [_Job(folder, out, shard, labels) for shard in range(len(manifest.shards))]
    for done, _ in enumerate(pool.each(write, jobs, workers), 1):
        progress(done, len(jobs))


@contextlib.contextmanager
def _exporting(out: str, manifest: Manifest, form: str) -> Iterator[None]:
    """Prepare a folder that is empty or holds the rest of the same, killed export.

    Raises:
      SnapshotError: the folder holds anything else.
    """
    fields = {"format": form, "data_version": manifest.data_version}
    fields |= {name: getattr(manifest, name) for name in ("inputs_sha256", "config_sha256")}
    export, mark = (json.dumps(fields) + "\n").encode(), os.path.join(out, _MARK)
    storage.make_folder(out)
    names = [name for name in storage.names(out) if name != _MARK]
    same = storage.exists(mark) and storage.read(mark) == export
    for name in names:
        written = name.startswith("shard-") or name == LABEL_MAP or name.endswith(_UNFINISHED)
        if not (written and same) and not _of_mark(name):
            raise snapshot.SnapshotError(
                f"--out {out!r} already contains {name!r}: choose an empty folder"
            )
    if storage.exists(mark) and not same:
        raise snapshot.SnapshotError(
            f"--out {out!r} contains another, incomplete export: choose an empty folder"
        )
    for name in names:
        storage.remove(os.path.join(out, name))
    snapshot.write_file(out, _MARK, export)
    yield
    storage.remove(mark)


def _of_mark(name: str) -> bool:
    return name.startswith(f"{_MARK}.") and name.endswith(_UNFINISHED)


def _clips(job: _Job) -> tuple[str, Iterator[Clip]]:
    """Return the stem of a shard's file names, and an iterator over its records."""
    manifest = verify.manifest_of(job.folder)
    places = [Place(job.shard, i) for i in range(manifest.shards[job.shard].records)]
    stem = contract.shard_name_of(manifest, job.shard)
    return stem, records.read(job.folder, manifest, places)


def _write_tar(job: _Job) -> None:
    stem, clips = _clips(job)
    with (
        storage.NewFile(os.path.join(job.out, f"{stem}.tar")) as file,
        tarfile.open(fileobj=cast(BinaryIO, file), mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for clip in clips:
            for name, data in _files(clip):
                # TarInfo's defaults (no owner, time 0) give the same bytes in every run.
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


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


def _labels(job: _Job) -> set[str]:
    return {label for clip in _clips(job)[1] for label in clip.labels}


def _write_examples(job: _Job) -> None:
    stem, clips = _clips(job)
    with storage.NewFile(os.path.join(job.out, f"{stem}.tfrecord")) as file:
        for clip in clips:
            example = _example(clip, job.labels)
            file.write(tfrecord.frame(example.SerializeToString(deterministic=True)))


def _example(clip: Clip, labels: Mapping[str, int]) -> SequenceExample:
    context = {
        "clip/data_path": _texts([clip.clip_id]),
        "clip/media_id": _texts([clip.video_id]),
        "clip/start/timestamp": _numbers([clip.start_us]),
        "clip/end/timestamp": _numbers([clip.end_us]),
        "clip/label/string": _texts(clip.labels),
        "clip/label/index": _numbers(labels[label] for label in clip.labels),
        "caption/string": _texts([clip.caption]),
        "noun/string": _texts(reading(chunk.text)[0] for chunk in clip.noun_chunks),
        "image/format": _texts([frame_codec.name(clip.frame_encoding).upper()]),
        "image/height": _numbers([clip.height]),
        "image/width": _numbers([clip.width]),
    }
    frames = {
        "image/encoded": [Feature(bytes_list=BytesList(value=[frame])) for frame in clip.frames],
        "image/timestamp": [_numbers([time_us]) for time_us in clip.frame_time_us],
    }
    return SequenceExample(
        context=Features(feature=context),
        feature_lists=FeatureLists(
            feature_list={name: FeatureList(feature=values) for name, values in frames.items()}
        ),
    )


def _texts(values: Iterable[str]) -> Feature:
    return Feature(bytes_list=BytesList(value=[value.encode() for value in values]))


def _numbers(values: Iterable[int]) -> Feature:
    return Feature(int64_list=Int64List(value=values))
