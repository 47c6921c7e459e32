"""Exported tar files, read by WebDataset's convention."""

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.snapshots import snapshot
from pipelines.snapshots.export import sequence_example, webdataset
from pipelines.sources.clip_request import clip_id
from protos.v1.clip_pb2 import FRAME_ENCODING_PNG, FRAME_ENCODING_RAW


@pytest.fixture
def written(tmp_path, make_clip, write_snapshot):
    clips = [make_clip(f"vi.deo{i}", caption=f"ein Schäfer{i}", grey=9 * i) for i in range(8)]
    return str(tmp_path / "snapshot"), write_snapshot(tmp_path / "snapshot", clips), clips


def samples(folder):
    """Group consecutive members by their name up to the first dot."""
    found, last = {}, None
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                assert key == last or key not in found, "a sample's files are apart"
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[extension] = file.read()
                last = key
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_every_record_is_a_sample(written, tmp_path, workers):
    folder, manifest, clips = written
    out = tmp_path / "out"
    webdataset.write(folder, manifest, str(out), workers=workers)
    found = samples(out)
    assert len(found) == len(clips)
    for clip in clips:
        sample = found[clip.clip_id.replace(".", "%2E")]
        fields = json.loads(sample["json"])
        assert sample["txt"].decode() == clip.caption
        assert (fields["clip_id"], fields["end_us"]) == (clip.clip_id, clip.end_us)
        assert fields["noun_chunks"] == [[c.text, c.start, c.end] for c in clip.noun_chunks]
        assert [sample[f"{i:04d}.jpg"] for i in range(4)] == list(clip.frames)
        assert len(sample) == 6


def test_benchmark_annotations_are_exported(tmp_path, make_clip, write_snapshot):
    clip = make_clip("video")
    clip.captions.extend([clip.caption, "somebody"])
    clip.questions.add(question_id="7", text="who is there?", answer="man", type="who")
    clip.segments.add(start_us=5, end_us=5, label="Ballet")
    clip.boxes.add(time_us=9, x1=0.25, x2=0.5, y2=1, labels=["12", "80"], person_id="1")
    clip.video_duration_us = 70
    manifest = write_snapshot(tmp_path / "snapshot", [clip])
    webdataset.write(str(tmp_path / "snapshot"), manifest, str(tmp_path / "out"))
    (sample,) = samples(tmp_path / "out").values()
    fields = json.loads(sample["json"])
    assert fields["captions"] == ["a man", "somebody"]
    assert fields["questions"] == [["7", "who is there?", "man", "who"]]
    assert fields["segments"] == [[5, 5, "Ballet"]]
    assert fields["boxes"] == [[9, [0.25, 0, 0.5, 1], ["12", "80"], "1", 0]]
    assert fields["video_duration_us"] == 70


def test_png_and_raw_frames(tmp_path, make_clip, write_snapshot):
    for encoding, suffix in ((FRAME_ENCODING_PNG, "png"), (FRAME_ENCODING_RAW, "npy")):
        clip = make_clip("video", grey=77, encoding=encoding)
        folder = tmp_path / suffix
        manifest = write_snapshot(folder, [clip], encoding=encoding)
        webdataset.write(str(folder), manifest, str(folder / "out"))
        (sample,) = samples(folder / "out").values()
        for i in range(4):
            data = io.BytesIO(sample[f"{i:04d}.{suffix}"])
            pixels = np.load(data) if suffix == "npy" else np.asarray(Image.open(data))
            np.testing.assert_array_equal(pixels, np.full((8, 12, 3), 77, np.uint8))


def test_exports_are_reproducible(written, tmp_path):
    folder, manifest, _ = written
    for name in ("a", "b"):
        webdataset.write(folder, manifest, str(tmp_path / name))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_nonempty_folder_is_refused(written, tmp_path):
    folder, manifest, _ = written
    with pytest.raises(snapshot.SnapshotError, match="choose an empty folder"):
        webdataset.write(folder, manifest, str(tmp_path))


@given(
    st.lists(st.text("aA.-_/%2E é", min_size=1, max_size=6), min_size=1, max_size=9, unique=True)
)
@settings(deadline=None, max_examples=500)
def test_no_two_clips_share_a_key(ids):
    keys = [webdataset.key(clip_id(video_id, 0, 1, "a")) for video_id in ids]
    assert len(set(keys)) == len(ids)
    assert not any(set("./") & set(key) for key in keys)


@pytest.mark.parametrize("ids", [("a.b", "a-b", "a_b"), ("a.b.c", "a-b.c", "a.b-c", "a%2Eb.c")])
def test_samples_of_similar_ids_are_distinct(tmp_path, make_clip, write_snapshot, ids):
    clips = [make_clip(video_id) for video_id in ids]
    for clip in clips:
        clip.clip_id = clip_id(clip.video_id, 0, 1, "a")
    manifest = write_snapshot(tmp_path / "snapshot", clips, shards=1)
    webdataset.write(str(tmp_path / "snapshot"), manifest, str(tmp_path / "out"))
    found = samples(tmp_path / "out")
    assert {json.loads(one["json"])["video_id"] for one in found.values()} == set(ids)


def test_every_shard_has_a_file(tmp_path, make_clip, write_snapshot):
    manifest = write_snapshot(tmp_path / "snapshot", [make_clip("video")], shards=4)
    for write, suffix in ((webdataset.write, "tar"), (sequence_example.write, "tfrecord")):
        out = tmp_path / suffix
        write(str(tmp_path / "snapshot"), manifest, str(out))
        names = [f"shard-{number:05d}-of-00004.{suffix}" for number in range(4)]
        assert sorted(path.name for path in out.glob("shard-*")) == names
        assert len(samples(tmp_path / "tar")) == 1
