"""The commands `columns` and `near-duplicates`, on the features of an untrained run."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from trainer.cli.main import main
from trainer.data import columns
from trainer.data.snapshot import Snapshot
from trainer.inference.encoder import Encoder, embed_clips
from trainer.runs import checkpoint


def annotate(clip, number):
    if number == 3:
        clip.caption = ""
        del clip.noun_chunks[:]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return Snapshot.open(
        write_snapshot_at(folder, clips=10, height=18, width=24, annotate=annotate).folder
    )


@pytest.fixture(scope="module")
def features(tmp_path_factory, untrained_run, snapshot):
    out = tmp_path_factory.mktemp("features") / "all"
    command = ["embed", f"--run={untrained_run}", f"--snapshot={snapshot.folder}", f"--out={out}"]
    assert main([*command, "--shard-clips=4", "--feature=clip", "--feature=score"]) == 0
    return out


@pytest.fixture
def run(snapshot):
    def command(*arguments):
        return main([arguments[0], f"--snapshot={snapshot.folder}", *map(str, arguments[1:])])

    return command


def test_a_score_is_the_cosine_of_clip_and_caption(
    run, snapshot, features, untrained_run, tmp_path, capsys
):
    assert run("columns", f"--features={features}", f"--out={tmp_path / 'score'}") == 0
    said = capsys.readouterr().out
    assert "score of 10 clips" in said and "missing 1" in said
    column = columns.read(tmp_path / "score")
    loaded = checkpoint.load(untrained_run)
    encoder = Encoder(loaded.config, loaded.tokenizer, loaded.params)
    texts, clips = embed_clips(snapshot, encoder, lambda *_: None)
    expected = np.diag(encoder.similarity([text.caption for text in texts], clips.clip)).copy()
    expected[3] = np.nan
    np.testing.assert_allclose(column.values, expected, atol=1e-6)
    assert column.missing == "the clip has no caption" and column.name == "score"
    manifest = json.loads((features / "features.json").read_text())
    assert column.made_from == {"feature": "score", "features": manifest["made_from"]}


def test_a_users_values_become_a_column(run, snapshot, tmp_path, capsys):
    ids, out = snapshot.clip_ids(range(10)), tmp_path / "cluster"
    values = tmp_path / "values.csv"
    rows = [f"{clip_id},{number}" for number, clip_id in enumerate(ids[:9])]
    values.write_text("\n".join(["clip_id,cluster", *rows, "other,3"]))
    command = ["columns", f"--values={values}", f"--out={out}"]
    assert run(*command) == 1
    assert "values.csv:11: clip 'other' is not in" in capsys.readouterr().err
    assert run(*command, "--ignore-unknown") == 1
    assert "no value for 1 of 10 clips" in capsys.readouterr().err and not out.exists()
    assert run(*command, "--ignore-unknown", "--missing=too short") == 0
    assert "1 rows are of no clip" in capsys.readouterr().err
    column = columns.read(out)
    assert (column.name, column.missing) == ("cluster", "too short")
    assert column.made_from["file"] == "values.csv"
    assert run("columns", f"--values={values}", f"--out={values}") == 1  # its own input
    assert run(*command, "--feature=clip") == 2
    assert run(*command, f"--features={tmp_path}") == 2
    assert run(*command[:2], f"--out={snapshot.folder}/cluster.safetensors") == 1
    capsys.readouterr()


def test_features_of_another_snapshot_or_damaged_are_refused(
    run, features, write_snapshot, tmp_path, capsys
):
    other = write_snapshot(clips=4).folder
    out = f"--out={tmp_path / 'out'}"
    assert main(["columns", f"--snapshot={other}", f"--features={features}", out]) == 1
    assert "has features of another snapshot" in capsys.readouterr().err
    assert run("columns", f"--features={features}", "--feature=groups", out) == 1
    assert "has no feature groups, only clip, score" in capsys.readouterr().err
    assert run("columns", f"--features={tmp_path}", out) == 1
    assert "features.json is missing" in capsys.readouterr().err
    broken = shutil.copytree(features, tmp_path / "broken")
    shard = broken / "features-00001-of-00003.safetensors"
    whole = shard.read_bytes()
    tensors = {"clip": np.zeros((4, 16), np.float32), "score": np.zeros(3, np.float32)}
    for damage in (
        lambda: shard.write_bytes(whole[:-9]),
        lambda: shard.write_bytes(b"\xff" * 64),
        lambda: shard.write_bytes(b""),
        lambda: safetensors.numpy.save_file(tensors, shard, {"made_from": "{}"}),
        lambda: safetensors.numpy.save_file(
            {"score": np.zeros(4, np.float32)}, shard, {"made_from": "{}"}
        ),
        shard.unlink,
        lambda: (broken / "features.json").write_text("{}"),
    ):
        damage()
        assert run("columns", f"--features={broken}", out) == 1
        assert "is missing or damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_near_duplicates_are_counted_and_shown_before_they_are_applied(
    run, snapshot, tmp_path, capsys
):
    vectors = np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32)
    vectors[7], vectors[9] = 2 * vectors[2], vectors[5] + 0.01
    columns.write(tmp_path / "vectors", snapshot, "vectors", vectors, {})
    command = ["near-duplicates", f"--column={tmp_path / 'vectors'}", "--threshold=0.97"]
    assert run(*command, f"--sheet={tmp_path / 'pairs.png'}") == 0
    said = capsys.readouterr().out
    assert "cosine > 0.97              2 clips  20.00 % <" in said
    assert "2 of 10 clips are near-duplicates at 0.97: nothing is written" in said
    ids = snapshot.clip_ids(range(10))
    assert all(ids[record] in said for record in (2, 7, 5, 9))
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert sheet.height > 4 * 120
    assert {path.name for path in tmp_path.iterdir()} == {"vectors", "pairs.png"}

    names = {"--out": "duplicates", "--write-ids": "ids.txt", "--write-clusters": "cluster"}
    outputs = [f"{option}={tmp_path / name}" for option, name in names.items()]
    assert run(*command, *outputs, "--clusters=2", "--pairs=0") == 0
    duplicates = columns.read(tmp_path / "duplicates")
    removed = np.flatnonzero(duplicates.values >= 0).tolist()
    pairs = {frozenset((record, int(duplicates.values[record]))) for record in removed}
    assert pairs == {frozenset((2, 7)), frozenset((5, 9))}
    assert duplicates.name == "duplicate_of" and duplicates.values.dtype == np.int64
    assert duplicates.made_from["threshold"] == 0.97 and duplicates.made_from["clusters"] == 2
    assert (tmp_path / "ids.txt").read_text().split() == [ids[record] for record in removed]
    assert set(columns.read(tmp_path / "cluster").values.tolist()) == {0, 1}


def test_near_duplicates_of_features(run, features, snapshot, tmp_path, capsys):
    assert run("near-duplicates", f"--features={features}", f"--out={tmp_path / 'a'}") == 0
    column = columns.read(tmp_path / "a")
    assert column.made_from["feature"] == "clip" and len(column.values) == 10
    for wrong, message in (
        (["--threshold=1"], "is not a cosine between 0 and 1"),
        (["--clusters=11"], "10 clips cannot be divided into 11 clusters"),
        (["--feature=groups"], "has no feature groups"),
    ):
        assert run("near-duplicates", f"--features={features}", *wrong) in (1, 2)
        assert message in capsys.readouterr().err
    columns.write(tmp_path / "numbers", snapshot, "n", np.zeros(10, np.float32), {})
    assert run("near-duplicates", f"--column={tmp_path / 'numbers'}") == 1
    assert "has no vectors of" in capsys.readouterr().err
