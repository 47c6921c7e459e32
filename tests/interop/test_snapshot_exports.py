"""Exported snapshots in `datasets`, webdataset and mlcroissant: equal records, equal frames."""

import gc
from typing import Any

import datasets
import mlcroissant
import numpy as np
import pytest
from mlcroissant._src.core.issues import GenerationError
from webdataset.compat import WebDataset

from pipelines.cli.main import main
from pipelines.snapshots import fields
from pipelines.snapshots.fields import FIELDS
from pipelines.sources.clip_request import clip_id
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG, FRAME_ENCODING_PNG, FRAME_ENCODING_RAW
from tests.docs import blocks
from tests.pipelines.conftest import clip_of, write_small_snapshot

pytestmark = [
    # mlcroissant uses what rdflib and pandas call obsolete. webdataset leaves files open.
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

IDS = (
    "a.b",
    "a/b",
    "a-b",
    "../a",
    ".a",
    "__a__",
    "a\nb",
    "ä",
    "a\u0308",
    "%2E",
    "01",
    "2020-01-01",
)
SHARDS = 16
NAMES = {"train": FRAME_ENCODING_JPEG, "test": FRAME_ENCODING_PNG, "raw": FRAME_ENCODING_RAW}
RECOMMENDED = {"citeAs", "datePublished"}  # which a snapshot does not know


def make_clips(encoding):
    clips = [
        clip_of(video_id, caption=f"ein Schäfer{i}", grey=9 * i, encoding=encoding)
        for i, video_id in enumerate(IDS)
    ]
    for clip in clips:
        clip.clip_id = clip_id(clip.video_id, clip.start_us, clip.end_us, clip.caption)
    clips[0].captions.extend([clips[0].caption, "somebody"])
    clips[1].questions.add(question_id="07", text="who is there?", answer="man", type="who")
    clips[1].segments.add(start_us=5, end_us=5, label="Ballet")
    clips[2].boxes.add(time_us=9, x1=0.1, x2=0.5, y2=1, labels=["12", "80"], person_id="1")
    clips[2].boxes.add(time_us=9, x1=0.3, x2=0.7, y2=1, score=0.3)
    clips[3].ClearField("caption")
    clips[3].ClearField("noun_chunks")
    clips[3].labels.extend(["rise", "fall"])
    return clips


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the records by snapshot and id, and the folder of the exports."""
    folder = tmp_path_factory.mktemp("exported")
    clips = {name: make_clips(encoding) for name, encoding in NAMES.items()}
    for name, encoding in NAMES.items():
        manifest = write_small_snapshot(
            folder / name, clips[name], shards=SHARDS, encoding=encoding
        )
        assert not all(shard.records for shard in manifest.shards)
        assert main(["export", str(folder / name), f"--out={folder / 'wds' / name}"]) == 0
    snapshots = [str(folder / name) for name in NAMES]
    words = ["--format=parquet", "--license=cc-by-4.0", *(f"--split={name}" for name in NAMES)]
    assert main(["export", *snapshots, *words, f"--out={folder / 'parquet'}"]) == 0
    described = folder / "train" / "croissant.json"
    assert main(["describe", str(folder / "train"), f"--out={described}", "--license=mit"]) == 0
    return {name: {one.clip_id: one for one in own} for name, own in clips.items()}, folder


def expected(clip, without=()):
    return {one.name: fields.value(clip, one) for one in FIELDS if one.name not in without}


def check_frames(clip, frames):
    """Compare the files of frames with the record's, or their pixels if those are raw."""
    if clip.frame_encoding != FRAME_ENCODING_RAW:
        assert frames == [*clip.frames]
        return
    image = datasets.Image()
    for raw, file in zip(clip.frames, frames, strict=True):
        pixels = np.asarray(image.decode_example({"bytes": file, "path": None}))
        assert pixels.tobytes() == raw


@pytest.mark.parametrize("source", ["folder", "parquet", "streaming"])
def test_datasets_loads_splits_features_and_records(exported, tmp_path, source):
    clips, folder = exported
    loaded: Any
    if source == "parquet":
        files = {name: str(folder / "parquet" / f"{name}-*.parquet") for name in NAMES}
        loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))
    else:
        loaded = datasets.load_dataset(
            str(folder / "parquet"), streaming=source == "streaming", cache_dir=str(tmp_path)
        )
    assert set(loaded) == set(NAMES)
    for name, split in loaded.items():
        found = split.features
        assert [*found] == [field.name for field in FIELDS]
        assert found["frames"] == datasets.List(datasets.Image())
        assert found["boxes"].feature["x1"] == datasets.Value("float32")
        assert found["noun_chunks"].feature["prompts"] == datasets.List(datasets.Value("string"))
        image = next(iter(split))["frames"][0]
        assert (image.size, image.mode) == ((12, 8), "RGB")

        rows = [*split.cast_column("frames", datasets.List(datasets.Image(decode=False)))]
        assert {row["clip_id"] for row in rows} == clips[name].keys()
        assert len(rows) == len(IDS)
        for row in rows:
            clip = clips[name][row["clip_id"]]
            check_frames(clip, [frame["bytes"] for frame in row.pop("frames")])
            assert row == expected(clip, without=["frames"])


def test_datasets_reads_the_metadata_of_the_card(exported):
    _, folder = exported
    builder = datasets.load_dataset_builder(str(folder / "parquet"))
    splits, features = builder.info.splits, builder.info.features
    assert splits is not None and features is not None
    assert {name: split.num_examples for name, split in splits.items()} == {
        name: len(IDS) for name in NAMES
    }
    assert features["segments"].feature["label"] == datasets.Value("string")


@pytest.mark.parametrize("name", NAMES)
def test_webdataset_yields_the_records(exported, name):
    clips, folder = exported
    pattern = f"{folder}/wds/{name}/shard-{{00000..{SHARDS - 1:05d}}}-of-{SHARDS:05d}.tar"
    suffix = {"train": "jpg", "test": "png", "raw": "npy"}[name]
    samples = [*WebDataset(pattern, shardshuffle=False)]
    keys = {sample["__key__"] for sample in samples}
    assert len(samples) == len(keys) == len(IDS)
    stream: Any = WebDataset(pattern, shardshuffle=False).decode("rgb8")
    decoded = {sample["json"]["clip_id"]: sample for sample in stream}
    assert decoded.keys() == clips[name].keys()
    for sample in samples:
        one = next(one for one in decoded.values() if one["__key__"] == sample["__key__"])
        clip = clips[name][one["json"]["clip_id"]]
        assert one["txt"] == clip.caption
        assert one["json"]["end_us"] == clip.end_us
        assert one["json"]["labels"] == [*clip.labels]
        for number, frame in enumerate(clip.frames):
            file = sample[f"{number:04d}.{suffix}"]
            pixels = one[f"{number:04d}.{suffix}"]
            assert pixels.shape == (8, 12, 3) and pixels.dtype == np.uint8
            assert (pixels.tobytes() if name == "raw" else file) == frame
    gc.collect()  # Warnings about open files are ignored in this test alone.


def described(path):
    """Load a description, which must have no error, and no warning but what is recommended."""
    found = mlcroissant.Dataset(jsonld=str(path))
    assert not found.metadata.issues.errors
    for warning in found.metadata.issues.warnings:
        assert any(f'{name}" is recommended' in warning for name in (*RECOMMENDED, "license"))
    return found


def plain(value, prefix) -> Any:
    """Return a value of mlcroissant's as plain Python, with the names of its fields."""
    if isinstance(value, dict):
        return {name.removeprefix(prefix): plain(one, f"{name}/") for name, one in value.items()}
    if isinstance(value, list):
        return [
            plain({"x": one}, prefix)["x"]
            if not isinstance(one, dict)
            else {name.rpartition("/")[2]: plain(part, prefix) for name, part in one.items()}
            for one in value
        ]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def test_mlcroissant_yields_the_parquet_records(exported):
    clips, folder = exported
    document = described(folder / "parquet" / "croissant.json")
    assert document.metadata.license == ["cc-by-4.0"]
    assert {plain(one["splits/name"], "") for one in document.records("splits")} == set(NAMES)
    seen = []
    for record in document.records("clips"):
        row = plain(record, "clips/")
        clip = clips[row.pop("split")][row["clip_id"]]
        frames = row.pop("frames")
        if clip.frame_encoding == FRAME_ENCODING_JPEG:
            again = [
                datasets.Image().decode_example({"bytes": f, "path": None}) for f in clip.frames
            ]
            assert [f.tobytes() for f in frames] == [f.tobytes() for f in again]
        assert row == expected(clip, without=["frames"])
        seen.append((clip.frame_encoding, clip.clip_id))
    assert len(set(seen)) == len(seen) == 3 * len(IDS)


def test_mlcroissant_yields_the_webdataset_records(exported):
    clips, folder = exported
    own = clips["train"]
    document = described(folder / "wds" / "train" / "croissant.json")
    by_key = {}
    for record in document.records("clips"):
        row = plain(record, "clips/")
        by_key[row.pop("key")] = clip = own[row["clip_id"]]
        assert (folder / "wds" / "train" / row.pop("shard")).exists()
        assert row == expected(clip, without=["frames"])
    assert len(by_key) == len(IDS)
    # mlcroissant keeps extracted tar files by name alone, so that one test reads frames.
    count = 0
    for record in document.records("frames"):
        clip = by_key[record["frames/key"].decode()]
        frame = clip.frames[int(record["frames/number"])]
        image = datasets.Image().decode_example({"bytes": frame, "path": None})
        assert record["frames/image"].tobytes() == image.tobytes()
        count += 1
    assert count == 4 * len(IDS)

    shard = max((folder / "wds" / "train").glob("*.tar"), key=lambda path: path.stat().st_size)
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + b"\1")
    document = described(folder / "wds" / "train" / "croissant.json")
    with pytest.raises(GenerationError, match="Download"):
        list(document.records("frames"))
    shard.write_bytes(data)


@pytest.mark.parametrize("place", ["train", "wds/test", "wds/raw"])
def test_mlcroissant_finds_no_fault(exported, place):
    _, folder = exported
    document = described(folder / place / "croissant.json")
    assert document.metadata.version == "1.0.0"
    assert "clips" in [one.id for one in document.metadata.record_sets]


def test_an_empty_export_of_webdataset_is_described(tmp_path):
    write_small_snapshot(tmp_path / "empty", [])
    assert main(["export", str(tmp_path / "empty"), f"--out={tmp_path / 'out'}"]) == 0
    document = described(tmp_path / "out" / "croissant.json")
    assert [*document.records("clips")] == []


def test_the_documented_code_runs(exported, tmp_path, monkeypatch, capsys):
    _, folder = exported
    monkeypatch.chdir(tmp_path)
    for name, target in (("parquet", "parquet"), ("webdataset", "wds/train")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").symlink_to(folder / target)
    page = blocks.ROOT / "docs" / "howto" / "other_trainers.md"
    code = blocks.of(page, "python")
    assert len(code) == 3
    for one in code:
        blocks.module("documented", one, page)
    gc.collect()
    assert "(12, 8)" in capsys.readouterr().out
