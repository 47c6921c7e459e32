"""Exports to Parquet: the records as rows, the splits, and what is refused."""

import errno
import io
import json
import re

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from pipelines.cli.main import main
from pipelines.snapshots import fields, snapshot
from pipelines.snapshots.croissant.documents import About
from pipelines.snapshots.export import parquet, parquet_file
from pipelines.snapshots.export.parquet import Split
from pipelines.snapshots.fields import FIELDS
from pipelines.sources.clip_request import clip_id
from pipelines.storage import storage
from protos.v1.clip_pb2 import FRAME_ENCODING_PNG, FRAME_ENCODING_RAW, Clip

# Ids that are alike as file names, hidden, or no file names at all.
HOSTILE = ("a.b", "a/b", "a-b", "../a", ".a", "a\nb", "ä", "a\u0308", "%2E", "𝕒" * 60)


@pytest.fixture
def written(tmp_path, make_clip, write_snapshot):
    clips = [make_clip(f"vi.deo{i}", caption=f"ein Schäfer{i}", grey=9 * i) for i in range(8)]
    folder = tmp_path / "snapshot"
    return str(folder), write_snapshot(folder, clips, shards=4), clips


def rows(folder, split="train"):
    """Return the rows of a split, by clip_id."""
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    found = [row for path in paths for row in pyarrow.parquet.read_table(path).to_pylist()]
    by_id = {row["clip_id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def expected(clip):
    row = {field.name: fields.value(clip, field) for field in FIELDS}
    return row | {"frames": [{"bytes": frame, "path": None} for frame in clip.frames]}


def test_every_field_of_a_record_is_a_column():
    def names(message, columns):
        assert {field.name for field in columns} == {field.name for field in message.fields}
        for field in columns:
            if field.parts:
                names(message.fields_by_name[field.name].message_type, field.parts)

    encoding = fields.Field("frame_encoding", fields.INT32, "An image states its own.")
    names(Clip.DESCRIPTOR, (*FIELDS, encoding))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_record_is_a_row(written, tmp_path, workers):
    folder, manifest, clips = written
    out = tmp_path / "out"
    parquet.write([Split("train", folder, manifest)], str(out), workers=workers)
    found = rows(out)
    assert found == {clip.clip_id: expected(clip) for clip in clips}
    names = {f"train-{number:05d}-of-00004.parquet" for number in range(4)}
    assert {path.name for path in out.iterdir()} == names | {"README.md", "croissant.json"}
    if workers == 2:
        parquet.write([Split("train", folder, manifest)], str(tmp_path / "again"))
        for path in out.iterdir():
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_benchmark_annotations_are_columns(tmp_path, make_clip, write_snapshot):
    clip = make_clip("video")
    clip.ClearField("caption")
    clip.ClearField("noun_chunks")
    clip.captions.extend(["", "somebody"])
    clip.questions.add(question_id="7", text="who is there?", answer="man", type="who")
    clip.segments.add(start_us=5, end_us=5, label="Ballet")
    clip.boxes.add(time_us=9, x1=0.25, x2=0.5, y2=1, labels=["12", "80"], person_id="1")
    manifest = write_snapshot(tmp_path / "snapshot", [clip])
    parquet.write([Split("test", str(tmp_path / "snapshot"), manifest)], str(tmp_path / "out"))
    (row,) = rows(tmp_path / "out", "test").values()
    assert (row["caption"], row["captions"], row["noun_chunks"]) == ("", ["", "somebody"], [])
    assert row["questions"][0]["answer"] == "man"
    assert row["segments"] == [{"start_us": 5, "end_us": 5, "label": "Ballet"}]
    box = {"time_us": 9, "x1": 0.25, "y1": 0, "x2": 0.5, "y2": 1, "labels": ["12", "80"]}
    assert row["boxes"] == [box | {"person_id": "1", "score": 0}]


def test_raw_frames_become_png_of_the_same_pixels(tmp_path, make_clip, write_snapshot):
    for encoding in (FRAME_ENCODING_PNG, FRAME_ENCODING_RAW):
        clip = make_clip("video", grey=77, encoding=encoding)
        folder = tmp_path / str(encoding)
        manifest = write_snapshot(folder, [clip], encoding=encoding)
        parquet.write([Split("train", str(folder), manifest)], str(folder / "out"))
        ((*frames,),) = (row["frames"] for row in rows(folder / "out").values())
        for frame in frames:
            image = Image.open(io.BytesIO(frame["bytes"]))
            assert image.format == "PNG"
            np.testing.assert_array_equal(image, np.full((8, 12, 3), 77, np.uint8))


def test_hostile_ids_are_rows(tmp_path, make_clip, write_snapshot):
    clips = [make_clip(video_id) for video_id in HOSTILE]
    for clip in clips:
        clip.clip_id = clip_id(clip.video_id, 0, 1, "a")
    manifest = write_snapshot(tmp_path / "snapshot", clips, shards=2)
    parquet.write([Split("train", str(tmp_path / "snapshot"), manifest)], str(tmp_path / "out"))
    assert {row["video_id"] for row in rows(tmp_path / "out").values()} == set(HOSTILE)


def test_row_groups_are_bounded_and_never_empty(tmp_path, make_clip, write_snapshot, monkeypatch):
    clips = [make_clip("video", start_us=i) for i in range(7)]
    manifest = write_snapshot(tmp_path / "snapshot", clips)
    size = sum(map(len, clips[0].frames))
    for number, (name, value) in enumerate((("_GROUP_ROWS", 3), ("_GROUP_BYTES", 3 * size))):
        with monkeypatch.context() as patched:
            patched.setattr(parquet_file, name, value)
            out = tmp_path / str(number)
            parquet.write([Split("train", str(tmp_path / "snapshot"), manifest)], str(out))
        files = [pyarrow.parquet.ParquetFile(path) for path in sorted(out.glob("*.parquet"))]
        groups = [
            [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            for file in files
        ]
        assert sorted(groups) == [[], [], [3, 3, 1]]
        assert len(rows(out)) == 7


def test_the_command_writes_named_splits(written, tmp_path, make_clip, write_snapshot):
    folder, _, clips = written
    write_snapshot(tmp_path / "test", [make_clip("other")], shards=1)
    words = ["export", folder, str(tmp_path / "test"), "--format=parquet", "--workers=1"]
    assert main([*words, f"--out={tmp_path / 'same'}"]) == 1
    words += ["--split=train", "--split=test", "--license=CC-BY-4.0", "--name=a: 'b' | ü"]
    assert main([*words, f"--out={tmp_path / 'out'}"]) == 0
    assert len(rows(tmp_path / "out")) == len(clips)
    assert [*rows(tmp_path / "out", "test")] == ["other_0_1000000"]
    metadata = front_matter(tmp_path / "out")
    assert (metadata["license"], metadata["pretty_name"]) == ("cc-by-4.0", "a: 'b' | ü")
    assert metadata["configs"][0]["data_files"] == [
        {"split": "train", "path": "train-*.parquet"},
        {"split": "test", "path": "test-*.parquet"},
    ]
    sizes = {one["name"]: one["num_examples"] for one in metadata["dataset_info"]["splits"]}
    assert sizes == {"train": len(clips), "test": 1}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--split=train"], "--format parquet"),
        (["--format=parquet", "--split=a", "--split=b"], "2 --split for 1 snapshots"),
        (["--format=parquet", "--split=a-b"], "'a-b' is no name of a split"),
        (["--format=parquet", "--split=all"], "'all'"),
        (["--format=sequence-example", "--license=mit"], "--license"),
        (["--license=a\nb"], "unprintable"),
        (["x"], "2 snapshots require --format parquet"),
    ],
)
def test_misuse(written, tmp_path, capsys, words, expected):
    try:
        status = main(["export", written[0], *words, f"--out={tmp_path / 'out'}"])
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert re.search(re.escape(expected), capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_snapshot_without_records_is_refused(written, tmp_path, write_snapshot):
    folder, manifest, _ = written
    empty = write_snapshot(tmp_path / "empty", [])
    splits = [Split("train", folder, manifest), Split("test", str(tmp_path / "empty"), empty)]
    with pytest.raises(snapshot.SnapshotError, match="empty' has no record"):
        parquet.write(splits, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_an_error_that_names_the_file(written, tmp_path, monkeypatch):
    folder, manifest, _ = written
    write = storage.NewFile.write

    def full(self, data):
        if self.bytes > 5000:
            raise OSError(errno.ENOSPC, "No space left on device", self._path)
        write(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(storage.NewFile, "write", full)
        with pytest.raises(OSError, match="No space left") as raised:
            parquet.write([Split("train", folder, manifest)], str(tmp_path / "out"))
    assert "train-0" in raised.value.filename
    parquet.write([Split("train", folder, manifest)], str(tmp_path / "out"))
    assert len(rows(tmp_path / "out")) == 8


def test_another_export_is_not_continued(written, tmp_path):
    folder, manifest, _ = written

    class KilledError(Exception):
        pass

    def killed(done, total):
        raise KilledError

    splits, out = [Split("train", folder, manifest)], str(tmp_path / "out")
    with pytest.raises(KilledError):
        parquet.write(splits, out, About(license="mit"), progress=killed)
    for other in (splits, [Split("test", folder, manifest)]):
        with pytest.raises(snapshot.SnapshotError, match="choose an empty folder"):
            parquet.write(other, out)
    parquet.write(splits, out, About(license="mit"))
    assert "export.json" not in storage.names(out)


def test_an_export_in_a_bucket_has_the_same_bytes(written, tmp_path, lab):
    folder, manifest, _ = written
    splits = [Split("train", folder, manifest)]
    parquet.write(splits, str(tmp_path / "out"))
    parquet.write(splits, f"{lab}/out")
    assert storage.names(f"{lab}/out") == storage.names(str(tmp_path / "out"))
    for path in (tmp_path / "out").iterdir():
        assert storage.read(f"{lab}/out/{path.name}") == path.read_bytes()


def test_the_schema_has_the_features(written, tmp_path):
    folder, manifest, _ = written
    parquet.write([Split("train", folder, manifest)], str(tmp_path / "out"))
    path = min((tmp_path / "out").glob("*.parquet"))
    metadata = json.loads(pyarrow.parquet.read_schema(path).metadata[b"huggingface"])
    features = metadata["info"]["features"]
    assert features["frames"] == [{"_type": "Image"}]
    assert features["start_us"] == {"dtype": "int64", "_type": "Value"}
    assert [*features] == [field.name for field in FIELDS]
