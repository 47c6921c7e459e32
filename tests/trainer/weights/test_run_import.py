"""A run made of an export is the run that was exported."""

import shutil

import jax
import numpy as np
import pytest

from trainer.cli.main import main
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.runs import checkpoint, lineage, run_folder, seen_clips


def run(*argv):
    return main([*map(str, argv)])


def same_params(one, other):
    ours, theirs = checkpoint.load(one), checkpoint.load(other)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert (ours.config, ours.step, ours.averaged) == (theirs.config, theirs.step, theirs.averaged)
    assert ours.tokenizer.difference(theirs.tokenizer) is None


def test_parameters_are_equal_to_the_bit_and_the_run_is_used(
    untrained_run, write_snapshot, tmp_path, capsys
):
    assert run("export", "--run", untrained_run, "--out", tmp_path / "hf") == 0
    assert run("import", "--from", tmp_path / "hf", "--out", tmp_path / "run") == 0
    same_params(untrained_run, tmp_path / "run")
    assert run("export", "--run", tmp_path / "run", "--out", tmp_path / "again") == 0
    for name in ("model.safetensors", "vocab.txt", "modeling_svilm.py", "processor_config.json"):
        assert (tmp_path / "hf" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    snapshot = write_snapshot(clips=4, height=18, width=24).folder
    found = {}
    for source in (untrained_run, tmp_path / "run"):
        capsys.readouterr()
        assert run("search", "a red ring", "--run", source, "--snapshot", snapshot) == 0
        found[source] = capsys.readouterr().out
    assert len(set(found.values())) == 1

    assert run("import", "--from", tmp_path / "hf", "--out", tmp_path / "run") == 1
    assert "has checkpoints already" in capsys.readouterr().err
    assert run("import", "--from", untrained_run, "--out", tmp_path / "other") == 1
    assert not (tmp_path / "other").exists()


def test_training_clips_are_known_and_the_run_is_not_continued(
    untrained_run, write_snapshot, tmp_path, capsys
):
    snapshot = Snapshot.open(write_snapshot(clips=8, height=18, width=24).folder)
    first, imported = tmp_path / "first", tmp_path / "imported"
    shutil.copytree(untrained_run, first)
    config, tokenizer = run_folder.read(first)
    mixture, origin = Mixture([snapshot]), run_folder.Origin({}, {}, {"start.run": "abc"})
    (first / "checkpoints").rename(tmp_path / "checkpoints")
    run_folder.start_or_continue(first, config, mixture, tokenizer, origin, steps=3)
    (tmp_path / "checkpoints").rename(first / "checkpoints")
    seen_clips.keep(first, seen_clips.gather([snapshot]))
    lineage.keep(first, Mixture([snapshot]), None)

    assert run("export", "--run", first, "--out", tmp_path / "hf") == 0
    assert run("import", "--from", tmp_path / "hf", "--out", imported) == 0
    same_params(first, imported)
    overlap = seen_clips.of_loaded(checkpoint.load(imported), snapshot)
    assert overlap.seen_videos == overlap.videos > 0
    data = run_folder.read_data(imported)
    assert data["snapshot.records"] == 8 and not data.keys() & {"start", "lineage"}
    with pytest.raises(run_folder.RunError, match="imported was"):
        run_folder.start_or_continue(imported, config, mixture, tokenizer, origin, steps=3)
    assert str(tmp_path) not in (tmp_path / "hf" / "config.json").read_text()
    card = (tmp_path / "hf" / "README.md").read_text()
    assert data["snapshot.inputs_sha256"] in card and "Initialized from other weights: run" in card

    (tmp_path / "videos.txt").write_text("video-00000\n")
    assert run("exposure", "--run", imported, "--videos", tmp_path / "videos.txt") == 1
    assert "was imported from an export" in capsys.readouterr().err

    (tmp_path / "hf" / "seen.bin").unlink()
    assert run("import", "--from", tmp_path / "hf", "--out", tmp_path / "without") == 0
    assert not seen_clips.of_loaded(checkpoint.load(tmp_path / "without"), snapshot).known
