"""The trainer's inputs: snapshots, run folders and features of clips.

A damaged file is refused in one line. Other values equal the written ones, or have their types.
"""

import contextlib
import functools
import hashlib
import json
import math
import pathlib
import struct
from typing import Any

import numpy as np
import safetensors.numpy
from google.protobuf import json_format

from protos import tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import Manifest, ShardIndex
from tests.fuzz import mutate
from tests.fuzz.engine import Target
from tests.fuzz.folder import folder
from tests.trainer.conftest import make_clip, make_tokenizer, write_clips
from trainer.configs.config import (
    Config,
    CutAndPasteConfig,
    InputConfig,
    TextConfig,
    VideoConfig,
)
from trainer.data.annotations import captions_of, read_annotations
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.tokenizer import VocabularyError
from trainer.inference.encoder import frames_of
from trainer.inference.features import FeaturesError
from trainer.runs import run_folder
from trainer.tasks.localisation.features import read_features
from trainer.training import metric_writer

_STEM = "shard-00000-of-00002"
_RUN_FILES = ("config.json", "data.json", "task.json", "metrics.jsonl", "vocab.txt")
_CONFIG = Config(
    video=VideoConfig(
        frames=4, resolution=16, patch=8, width=16, layers=1, heads=2, grouping_after=(1,)
    ),
    text=TextConfig(vocabulary=120, tokens=12, width=16, layers=1, heads=2),
    input=InputConfig(nouns=2, short_side=16, scale=(1.0, 1.0), flip=True),
    cut_and_paste=CutAndPasteConfig(pair_group=2),
    batch=2,
    epochs=1,
)


@functools.cache
def sound() -> dict[str, bytes]:
    """Return the files of a valid snapshot."""
    draw = np.random.default_rng(1)
    clips = [make_clip(draw, number, 4, 16, 16) for number in range(5)]
    path = folder() / "dataset"
    write_clips(path, clips, 4, 16, 2)
    return {one.name: one.read_bytes() for one in path.iterdir()}


@functools.cache
def sound_run() -> dict[str, bytes]:
    """Return the small files of a run."""
    path = folder() / "vocab.txt"
    make_tokenizer().save(path)
    data = {"vocabulary": "given", "snapshot.records": 5, "start": {"options": {}, "fields": {}}}
    task = {"name": "action", "config": {"frozen": True}, "classes": ["a", "b"], "trained_on": {}}
    steps = [{"step": step, "loss": 1.5, "seconds": 0.25} for step in (1, 2)]
    return {
        "config.json": _CONFIG.to_json().encode(),
        "data.json": json.dumps(data).encode(),
        "task.json": json.dumps(task).encode(),
        "metrics.jsonl": b"".join(json.dumps(step).encode() + b"\n" for step in steps),
        "vocab.txt": path.read_bytes(),
    }


@functools.cache
def sound_features() -> dict[str, bytes]:
    """Return a folder of features of two videos' three windows."""
    clips = [
        {"video_id": video, "start_us": k * 1_000_000, "end_us": (k + 1) * 1_000_000}
        for video, windows in (("a", 2), ("b", 1))
        for k in range(windows)
    ]
    shard = "features-00000-of-00001.safetensors"
    tensors = {"groups": np.arange(12, dtype=np.float32).reshape(3, 4)}
    manifest = {
        "format": "svilm-features/1",
        "made_from": {},
        "features": {"groups": [4]},
        "clips": 3,
        "shards": [{"name": shard, "clips": 3}],
    }
    metadata = {"clips": json.dumps(clips), "made_from": "{}"}
    return {
        "features.json": json.dumps(manifest).encode(),
        shard: safetensors.numpy.save(tensors, metadata=metadata),
    }


def targets() -> list[Target]:
    """Return one target per kind of file."""
    files, run, features = sound(), sound_run(), sound_features()
    data = files[f"{_STEM}.tfrecord"]
    record = tfrecord.unframe(data[: 16 + struct.unpack_from("<Q", data)[0]])
    (shard,) = (name for name in features if name.endswith(".safetensors"))
    of_run = [
        Target(
            f"run {name}",
            [run[name]],
            functools.partial(_run, name),
            mutate.lines if name == "vocab.txt" else mutate.json_text,
        )
        for name in _RUN_FILES
    ]
    return [
        Target("manifest", [files["manifest.json"]], _manifest, mutate.json_text),
        Target("index", [files[f"{_STEM}.index"]], _index, mutate.protobuf(ShardIndex)),
        Target("shard", [data], _shard, mutate.framed(mutate.protobuf(Clip))),
        Target("record", [record], _record, mutate.protobuf(Clip), seconds=30.0),
        *of_run,
        Target(
            "features manifest",
            [features["features.json"]],
            functools.partial(_features, "features.json"),
            mutate.json_text,
        ),
        Target(
            "features shard",
            [features[shard]],
            functools.partial(_features, shard),
            mutate.safetensors,
        ),
    ]


# --- Snapshots ---


def _with(base: dict[str, bytes], files: dict[str, bytes], name: str) -> pathlib.Path:
    """Return the valid files with some replaced."""
    path = folder() / name
    path.mkdir(exist_ok=True)
    for one, data in (base | files).items():
        there = path / one
        if not there.exists() or there.read_bytes() != data:
            there.write_bytes(data)
    return path


def _forged(suffix: str, data: bytes, more: dict[str, bytes] | None = None) -> pathlib.Path:
    """Return files with one shard file replaced and the manifest's checksum and length updated."""
    manifest = json_format.Parse(sound()["manifest.json"], Manifest())
    files = {f"{_STEM}.{suffix}": data} | (more or {})
    for entry in (manifest.shards[0].data, manifest.shards[0].index):
        if entry.name in files:
            content = files[entry.name]
            entry.bytes, entry.sha256 = len(content), hashlib.sha256(content).hexdigest()
    files["manifest.json"] = json_format.MessageToJson(manifest).encode()
    return _with(sound(), files, "tried-dataset")


def _use(path: pathlib.Path, *, decode: bool = False) -> list[bytes]:
    """Open a snapshot and return its readable records."""
    found: list[bytes] = []
    try:
        snapshot = Snapshot.open(path)
    except SnapshotError as error:
        _one_line(error)
        return found
    try:
        uses = [
            lambda number: found.extend(snapshot.read([number])),
            lambda number: snapshot.locate(number),
            lambda number: snapshot.clip_ids([number]),
        ]
        if decode:
            uses.append(lambda number: frames_of(snapshot, [number], _CONFIG))
        for use in uses:
            for number in range(min(len(snapshot), 6)):
                try:
                    use(number)
                except SnapshotError as error:
                    _one_line(error)
        try:
            for clip in read_annotations(snapshot) if len(snapshot) < 100 else ():
                captions_of(clip)
        except SnapshotError as error:
            _one_line(error)
    finally:
        snapshot._threads.shutdown()
        snapshot._files._threads.shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _one_line(error: Exception) -> None:
    assert "\n" not in str(error), "a message of several lines"


def _manifest(data: bytes) -> None:
    _ours(_use(_with(sound(), {"manifest.json": data}, "tried-dataset")))


def _index(data: bytes) -> None:
    _ours(_use(_forged("index", data)))


def _ours(found: list[bytes]) -> None:
    every = b"".join(sound().values())
    assert all(record in every for record in found), "a record that is none"


def _shard(data: bytes) -> None:
    found = _use(_forged("tfrecord", data))
    assert all(tfrecord.frame(record) in data + sound()["shard-00001-of-00002.tfrecord"]
               for record in found), "a record whose checksum is wrong"  # fmt: skip


def _record(data: bytes) -> None:
    frames = sound()[f"{_STEM}.tfrecord"]
    (length,) = struct.unpack_from("<Q", frames)
    ours = tfrecord.frame(data)
    index = ShardIndex.FromString(sound()[f"{_STEM}.index"])
    shift = len(ours) - index.records[0].length
    index.records[0].length = len(ours)
    for entry in index.records[1:]:
        entry.offset += shift
    more = {f"{_STEM}.index": index.SerializeToString()}
    _use(_forged("tfrecord", ours + frames[16 + length :], more), decode=True)


# --- Runs and features ---


def _run(name: str, data: bytes) -> None:
    path = _with(sound_run(), {name: data}, "run")
    reads = {
        "config.json": lambda: _configuration(*run_folder.read(path)),
        "vocab.txt": lambda: _configuration(*run_folder.read(path)),
        "task.json": lambda: run_folder.read_task(path),
        "data.json": lambda: _with_checkpoint(path),
        "metrics.jsonl": lambda: _lines(metric_writer.read(path)),
    }
    # The command line joins a message's lines.
    with contextlib.suppress(run_folder.RunError, VocabularyError):
        reads[name]()


def _with_checkpoint(path: pathlib.Path) -> None:
    (path / "checkpoints" / "2").mkdir(parents=True, exist_ok=True)
    origin = run_folder.read_origin(path, {})
    if origin:
        origin.configure(_CONFIG)


def _configuration(config: Config, tokenizer: Any) -> None:
    assert Config.from_json(config.to_json()) == config, "a configuration that changes when written"
    _of_kind(json.loads(config.to_json()), json.loads(_CONFIG.to_json()), "")
    tokenizer.encode(["a red ring"], 12)


def _of_kind(found: Any, like: Any, name: str) -> None:
    """Check that each value has the type of its configuration field."""
    if isinstance(like, dict):
        assert isinstance(found, dict)
        assert found.keys() == like.keys()
        for key in like:
            _of_kind(found[key], like[key], f"{name}.{key}")
    elif isinstance(like, bool) or isinstance(found, bool):
        assert type(found) is type(like), f"{name} is {found!r}"
    elif isinstance(like, int | float):
        assert isinstance(found, int | float) or found is None, f"{name} is {found!r}"
        assert found is None or abs(found) < float("inf"), f"{name} is {found!r}"
    elif isinstance(like, str):
        assert isinstance(found, str) or found is None, f"{name} is {found!r}"


def _lines(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        assert isinstance(line, dict)
        assert type(line["step"]) is int


def _features(name: str, data: bytes) -> None:
    path = _with(sound_features(), {name: data}, "features")
    try:
        videos = read_features(path, "groups")
    except FeaturesError as error:
        _one_line(error)
        return
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    for video in videos.values():
        assert math.isfinite(video.seconds), f"{video.seconds} s"
        assert np.isfinite(video.features).all(), "features that are not finite"
        if name == "features.json":
            assert all(any((row == one).all() for one in rows) for row in video.features)
