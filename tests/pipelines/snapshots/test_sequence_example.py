"""TensorFlow reads the output of `export --format sequence-example` by MediaSequence's keys."""

import csv

import numpy as np
import pytest

from pipelines.snapshots import snapshot, verify
from pipelines.snapshots.export import sequence_example
from protos.v1.clip_pb2 import FRAME_ENCODING_PNG, FRAME_ENCODING_RAW, Clip


@pytest.fixture
def clips(make_clip):
    made = [make_clip(f"v{i}", start_us=i, caption=f"ein Schäfer{i}", grey=9 * i) for i in range(8)]
    for clip, labels in zip(made, (["rise", "fall"], ["fall"]), strict=False):
        clip.labels.extend(labels)
    return made


def read(folder, tf):
    one, some = tf.io.FixedLenFeature([], tf.string), tf.io.VarLenFeature(tf.string)
    time = tf.io.FixedLenFeature([], tf.int64)
    context = {
        "clip/data_path": one,
        "clip/media_id": one,
        "clip/start/timestamp": time,
        "clip/end/timestamp": time,
        "clip/label/string": some,
        "clip/label/index": tf.io.VarLenFeature(tf.int64),
        "caption/string": some,
        "noun/string": some,
        "image/format": one,
        "image/height": time,
        "image/width": time,
    }
    frames = {
        "image/encoded": tf.io.FixedLenSequenceFeature([], tf.string),
        "image/timestamp": tf.io.FixedLenSequenceFeature([], tf.int64),
    }
    files = sorted(map(str, folder.glob("*.tfrecord")))
    for record in tf.data.TFRecordDataset(files):
        yield tf.io.parse_single_sequence_example(record, context, frames)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_record_is_an_example(tmp_path, clips, write_snapshot, workers):
    import tensorflow as tf

    manifest = write_snapshot(tmp_path / "snapshot", clips)
    sequence_example.write(
        str(tmp_path / "snapshot"), manifest, str(tmp_path / "out"), workers=workers
    )
    with open(tmp_path / "out" / sequence_example.LABEL_MAP, newline="") as file:
        labels = [row[0] for row in csv.reader(file)]
    assert labels == ["fall", "rise"]
    by_id: dict[str, Clip] = {clip.clip_id: clip for clip in clips}
    for context, frames in read(tmp_path / "out", tf):
        clip = by_id.pop(context["clip/data_path"].numpy().decode())
        assert context["clip/media_id"].numpy().decode() == clip.video_id
        assert context["clip/start/timestamp"] == clip.start_us
        assert context["clip/end/timestamp"] == clip.end_us
        assert [v.decode() for v in context["caption/string"].values.numpy()] == [clip.caption]
        nouns = [chunk.text for chunk in clip.noun_chunks]
        assert [v.decode() for v in context["noun/string"].values.numpy()] == nouns
        assert [labels[i] for i in context["clip/label/index"].values.numpy()] == [*clip.labels]
        assert [v.decode() for v in context["clip/label/string"].values.numpy()] == [*clip.labels]
        assert context["image/format"] == b"JPEG"
        assert [*frames["image/encoded"].numpy()] == [*clip.frames]
        assert frames["image/timestamp"].numpy().tolist() == [*clip.frame_time_us]
        decoded = tf.io.decode_jpeg(frames["image/encoded"][0])
        assert decoded.shape == (context["image/height"], context["image/width"], 3)
    assert not by_id
    if workers == 1:
        with pytest.raises(snapshot.SnapshotError, match="choose an empty folder"):
            sequence_example.write(str(tmp_path / "snapshot"), manifest, str(tmp_path / "out"))


def test_png_frames_decode_and_raw_ones_are_refused(tmp_path, make_clip, write_snapshot):
    import tensorflow as tf

    for encoding, name in ((FRAME_ENCODING_PNG, "png"), (FRAME_ENCODING_RAW, "raw")):
        clip = make_clip("v", grey=77, encoding=encoding)
        write_snapshot(tmp_path / name, [clip], encoding=encoding)

    def run(name):
        manifest = verify.read_manifest(str(tmp_path / name))
        sequence_example.write(str(tmp_path / name), manifest, str(tmp_path / f"{name}-out"))

    run("png")
    ((context, frames),) = read(tmp_path / "png-out", tf)
    assert context["image/format"] == b"PNG"
    # DMVR decodes every format like this.
    pixels = tf.io.decode_jpeg(frames["image/encoded"][0], channels=3)
    np.testing.assert_array_equal(pixels, np.full((8, 12, 3), 77, np.uint8))
    with pytest.raises(snapshot.SnapshotError, match="raw frames"):
        run("raw")
    assert not (tmp_path / "raw-out").exists()
