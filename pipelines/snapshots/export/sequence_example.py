"""Export to TFRecords of tf.train.SequenceExample with MediaSequence's keys, which DMVR reads.

https://github.com/google-ai-edge/mediapipe, mediapipe/util/sequence.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping

from pipelines.decoding import frame_codec
from pipelines.snapshots import snapshot
from pipelines.snapshots.export import shards
from pipelines.snapshots.export.shards import Job
from pipelines.storage import storage
from protos import tfrecord
from protos.reading import reading
from protos.v1.clip_pb2 import FRAME_ENCODING_RAW, Clip
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


def write(
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
            "webdataset or parquet, or build it with --encoding png"
        )
    mark = {"format": "sequence-example"} | shards.identity(manifest)
    with shards.exporting(out, mark, [LABEL_MAP]):
        jobs = shards.jobs(folder, manifest, out, suffix="tfrecord")
        found = shards.each(_labels, jobs, workers, lambda done, total: None)
        ordered = sorted({name for names in found for name in names})
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([name] for name in ordered)
        labels = {name: number for number, name in enumerate(ordered)}
        jobs = [job._replace(labels=labels) for job in jobs]
        shards.each(_write_shard, jobs, workers, progress)
        snapshot.write_file(out, LABEL_MAP, text.getvalue().encode())


def _labels(job: Job) -> set[str]:
    return {label for clip in shards.clips(job) for label in clip.labels}


def _write_shard(job: Job) -> None:
    with storage.NewFile(job.path) as file:
        for clip in shards.clips(job):
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
