"""Damaged and forged files are refused in one line that names the file."""

import io
import json

import numpy as np
import pytest
import safetensors.numpy

from protos import tfrecord
from protos.v1 import clip_pb2, manifest_pb2
from trainer.configs.config import Config
from trainer.data.annotations import read_annotations, read_texts
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.evaluation import box_files as spatiotemporal
from trainer.evaluation import retrieval_files as retrieval
from trainer.evaluation.prediction_files import TaskFileError
from trainer.inference.encoder import frames_of
from trainer.inference.features import FeaturesError
from trainer.runs import run_folder
from trainer.tasks.localisation.features import read_features
from trainer.training import metric_writer
from trainer.weights.hf_format import Checkpoint, WeightsError

DEEP = "[" * 100_000 + "]" * 100_000  # more than any version of Python nests


@pytest.mark.parametrize(
    "line",
    [
        b'{"step": 1',
        b'{"step": "1"}',
        b'{"loss": 1.0}',
        b'{"step": 1, "step": 2}',
        b"[1]",
        b'{"step": 1, "a": "\xff"}',
        f'{{"step": 1, "a": {DEEP}}}'.encode(),
    ],
    ids=lambda line: line[:24],
)
def test_a_damaged_line_of_metrics_is_named(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(run_folder.RunError, match=r"metrics\.jsonl:2 is damaged") as error:
        metric_writer.read(tmp_path)
    assert "\n" not in str(error.value)


def test_an_unfinished_last_line_of_metrics_is_left_out_whatever_it_holds(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2, "a": "\xc3')
    assert metric_writer.read(tmp_path) == [{"step": 1}]


@pytest.mark.parametrize(
    "data",
    ["[]", '{"start": 7}', '{"start": {"options": []}}', '{"start": [1]}', f'{{"start": {DEEP}}}'],
    ids=lambda data: data[:24],
)
def test_a_damaged_data_json_is_named(data, tmp_path):
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    (tmp_path / "data.json").write_text(data)
    with pytest.raises(run_folder.RunError, match=r"data\.json is damaged"):
        run_folder.read_origin(tmp_path, {})


@pytest.mark.parametrize("fields", [{"": 1}, {"video.none": 1}, {"batch.x": 1}, {"batch": "a"}])
def test_unknown_fields_of_a_start_are_refused(fields):
    with pytest.raises(run_folder.RunError, match=r"data\.json"):
        run_folder.Origin({}, fields, {}).configure(Config())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("joint_width", "16"),
        ("joint_width", 16.0),
        ("joint_width", True),
        ("batch", None),
        ("video", 7),
        ("video", {"width": "16"}),
        ("input", {"flip": 1}),
        ("on_bad_step", "go on"),
    ],
)
def test_a_configuration_takes_no_value_of_another_kind(name, value):
    values = json.loads(Config().to_json())
    values[name] = values[name] | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=r"cannot be|must be an object"):
        Config.from_json(json.dumps(values))
    assert Config.from_json(Config().to_json()) == Config()


@pytest.mark.parametrize(
    "window",
    [
        7,
        {"video_id": 7, "start_us": 0, "end_us": 1},
        {"video_id": "a", "start_us": "0", "end_us": 1},
        {"video_id": "a", "start_us": 2, "end_us": 1},
        {"video_id": "a", "start_us": 0, "end_us": 10**30},
        {"video_id": "a", "start_us": 0.5, "end_us": 1},
    ],
)
def test_features_of_windows_that_are_none_are_refused(window, tmp_path):
    windows = [{"video_id": "a", "start_us": 1, "end_us": 2}, window]
    safetensors.numpy.save_file(
        {"groups": np.zeros((2, 4), np.float32)},
        tmp_path / "a.safetensors",
        metadata={"clips": json.dumps(windows)},
    )
    listed = {"features": {"groups": [4]}, "shards": [{"name": "a.safetensors", "clips": 2}]}
    (tmp_path / "features.json").write_text(json.dumps(listed))
    with pytest.raises(FeaturesError, match="is damaged"):
        read_features(tmp_path, "groups")


@pytest.mark.parametrize("damaged", [DEEP, "7", '{"features": 7}', '{"features": {"groups": [4]}}'])
def test_a_damaged_manifest_of_features_is_refused(damaged, tmp_path):
    (tmp_path / "features.json").write_text(damaged)
    with pytest.raises(FeaturesError, match="is damaged"):
        read_features(tmp_path, "groups")


def test_a_setting_of_weights_beyond_any_number_is_named(tmp_path):
    checkpoint = Checkpoint(tmp_path, {"layer_norm_eps": 10**400, "eps": 1}, {}, {})
    assert checkpoint.setting("eps", float) == 1.0
    with pytest.raises(WeightsError, match="'layer_norm_eps' must be float, got 1000"):
        checkpoint.setting("layer_norm_eps", float)


def header_of(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        header_of(b"{'descr': '<f4',"),
        header_of(b"{'descr': '(((,f4', 'fortran_order': False, 'shape': (2, 2)}\n"),
        header_of(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000)}\n"),
        header_of(b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}\n"),
        b"\x93NUMPY",
        b"",
    ],
    ids=["cut", "type", "huge", "objects", "short", "empty"],
)
def test_an_invalid_array_is_one_line(data, tmp_path):
    (tmp_path / "a.npy").write_bytes(data)
    (tmp_path / "t.csv").write_text("video_id,sentence\nv,a cat\nw,a dog\n")
    with pytest.raises(TaskFileError, match=r"a\.npy") as error:
        retrieval.score(tmp_path / "a.npy", tmp_path / "t.csv")
    assert "\n" not in str(error.value)


def test_an_array_is_read_as_it_was_written(tmp_path):
    file = io.BytesIO()
    np.save(file, np.array([[1, 0], [0, 1]]))
    (tmp_path / "a.npy").write_bytes(file.getvalue())
    (tmp_path / "t.csv").write_text("video_id,sentence\nv,a cat\nw,a dog\n")
    assert retrieval.score(tmp_path / "a.npy", tmp_path / "t.csv")["t2v"]["R@1"] == 100


NINES = "9" * 5000


@pytest.mark.parametrize(
    "row",
    [f"v,{NINES},0.1,0.1,0.2,0.8,12,0.5", f"v,0902,0.1,0.1,0.2,0.8,{NINES},0.5"],
    ids=["second", "action"],
)
def test_numbers_of_thousands_of_digits_are_refused(row, tmp_path):
    (tmp_path / "d.csv").write_text(f"{row}\n")
    with pytest.raises(TaskFileError, match=r"d\.csv:1"):
        spatiotemporal.read_labelled(tmp_path / "d.csv", scored=True)


def test_a_class_that_is_listed_twice_counts_once(tmp_path):
    (tmp_path / "c.pbtxt").write_text("item {\n  id: 12\n  id: 12\n  label_id: 80\n}\n")
    assert spatiotemporal.read_classes(tmp_path / "c.pbtxt") == (12, 80)


@pytest.mark.parametrize("number", ["0", "81", NINES])
def test_a_list_of_classes_that_are_no_actions_is_refused(number, tmp_path):
    (tmp_path / "c.pbtxt").write_text(f"item {{\n  id: {number}\n}}\n")
    with pytest.raises(TaskFileError, match="must be actions in"):
        spatiotemporal.read_classes(tmp_path / "c.pbtxt")


@pytest.fixture
def forged(write_snapshot):
    """Write a snapshot whose first record is forged and has valid checksums: record -> folder."""

    def write(change):
        written = write_snapshot(clips=2, frames=4, height=16, width=16, shards=1)
        record = change(written.clips[0])
        framed = [tfrecord.frame(record), tfrecord.frame(written.clips[1].SerializeToString())]
        ids = [clip.clip_id for clip in written.clips]
        entries = [
            manifest_pb2.RecordEntry(length=len(one), clip_id=name)
            for one, name in zip(framed, ids, strict=True)
        ]
        index = manifest_pb2.ShardIndex(records=entries)
        _replace(written, data=b"".join(framed), index=index.SerializeToString())
        return written.folder

    return write


def _replace(written, **files):
    import hashlib

    values = json.loads(written.manifest.read_text())
    (shard,) = values["shards"]
    for kind, data in files.items():
        (written.folder / shard[kind]["name"]).write_bytes(data)
        shard[kind] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    written.manifest.write_text(json.dumps(values))


def test_an_invalid_record_is_refused(forged):
    snapshot = Snapshot.open(forged(lambda clip: b"\xff" * 9))
    for read in (lambda: read_annotations(snapshot), lambda: read_texts(Mixture([snapshot]), 2)):
        with pytest.raises(SnapshotError, match="is not a valid record"):
            read()


@pytest.mark.parametrize("size", [-(2**31), 0, 1 << 16, 2**31 - 1])
def test_a_record_of_an_impossible_size_does_not_end_the_process(size, forged, small_config):
    def change(clip: clip_pb2.Clip) -> bytes:
        clip.height = size
        return clip.SerializeToString()

    snapshot = Snapshot.open(forged(change))
    with pytest.raises(SnapshotError, match=r"the record's height (must|is too)"):
        frames_of(snapshot, [0], small_config)
    assert frames_of(snapshot, [1], small_config).shape[0] == 1


@pytest.mark.parametrize("lengths", [(-5, 5), (2**62, -(2**62)), (0, 0)])
def test_an_index_of_lengths_that_are_none_is_refused(lengths, write_snapshot):
    written = write_snapshot(clips=2, frames=4, height=16, width=16, shards=1)
    snapshot = Snapshot.open(written.folder)
    size = snapshot.manifest.shards[0].data.bytes
    entries = [
        manifest_pb2.RecordEntry(length=length, clip_id="a")
        for length in (lengths[0], lengths[1] + (size if sum(lengths) == 0 else 0))
    ]
    index = manifest_pb2.ShardIndex(records=entries).SerializeToString()
    _replace(written, index=index)
    with pytest.raises(SnapshotError, match="covers"):
        Snapshot.open(written.folder).read([1])
