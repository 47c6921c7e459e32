"""Outputs never replace an input or the output of another command."""

import argparse
import hashlib
import json
import os
import shutil

import pytest

from trainer.cli.main import main
from trainer.cli.outputs import EXPORT, FIGURES, RUN, OutputError, check_folder


@pytest.fixture
def place(tmp_path, untrained_run, write_snapshot, monkeypatch):
    """A folder with a run, a snapshot and other folders that commands write."""
    shutil.copytree(untrained_run, tmp_path / "run")
    write_snapshot(clips=4, height=18, width=24)
    for folder, files in {
        "features": ["features.json"],
        "localisation": ["localisation.json", "model.safetensors"],
        "study": ["study.json"],
        "index": ["index.json", "data-0"],
    }.items():
        (tmp_path / folder).mkdir()
        for file in files:
            (tmp_path / folder / file).write_text("{}")
    (tmp_path / "truth.jsonl").write_text("{}")
    os.symlink("truth.jsonl", tmp_path / "link.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


OF_RUN = ["--run=run", "--snapshot=snapshot"]


@pytest.mark.parametrize(
    "argv",
    [
        ["export", "--run=run", "--video=run"],
        ["export", "--run=run", "--text=run"],
        ["export", "--run=run", "--text=run/checkpoints/0"],
        ["export", "--run=run", "--text=run/checkpoints"],
        ["export", "--run=run", "--video=localisation"],
        ["export", "--run=run", "--video=new", "--text=snapshot"],
        ["embed", *OF_RUN, "--out=run"],
        ["embed", *OF_RUN, "--out=./snapshot"],
        ["embed", "--run=run", "--videos=features", "--out=features"],
        ["index", *OF_RUN, "--out=features"],
        ["index", *OF_RUN, "--out=snapshot"],
        ["search", "ring", "--index=index", "--json=index/index.json"],
        ["search", "--noun=ring", "--index=index", "--heat-maps=index"],
        ["figures", *OF_RUN, "--out=study"],
        ["localise", "--features=features", "--truth=truth.jsonl", "--out=run"],
        ["study", "losses", "--preset=tiny", "--snapshot=snapshot", "--test=t", "--out=run"],
        ["pretrain", "--preset=tiny", "--snapshot=snapshot", "--out=features"],
        ["finetune", "--task=qa", "--preset=shapes", *OF_RUN, "--out=snapshot"],
        ["evaluate", *OF_RUN, "--truth=truth.jsonl", "--out=truth.jsonl"],
        ["evaluate", *OF_RUN, "--truth=truth.jsonl", "--out=link.jsonl"],
        ["evaluate", *OF_RUN, "--truth=link.jsonl", "--out=snapshot/../truth.jsonl"],
        ["evaluate", *OF_RUN, "--out=snapshot/manifest.json"],
        ["evaluate", "--task=qa", *OF_RUN, "--out=a.json", "--write-predictions=./a.json"],
        ["evaluate", "--task=qa", "--predictions=truth.jsonl", "--truth=t", "--out=truth.jsonl"],
        ["evaluate", *OF_RUN, "--out=run/config.json"],
        ["evaluate", *OF_RUN, "--out=run/checkpoints/0/config/metadata"],
        ["evaluate", *OF_RUN, "--out=run"],
        ["search", "ring", *OF_RUN, "--out=snapshot/found.png"],
        ["report", *OF_RUN, "--metrics=truth.jsonl", "--out=truth.jsonl"],
        ["plan", "--preset=tiny", "--out=localisation/model.safetensors"],
    ],
    ids=" ".join,
)
def test_an_output_is_refused_that_would_destroy_something(argv, place, capsys):
    before = contents(place)
    assert main(argv) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("svilm-train: error: ") and "give a" in line
    assert contents(place) == before


def test_two_encoders_are_not_exported_into_one_folder(place, capsys):
    assert main(["export", "--run=run", "--video=both", "--text=./both"]) == 2
    assert "--video and --text are both" in capsys.readouterr().err
    assert not (place / "both").exists()

    assert main(["export", "--run=run", "--video=video", "--text=text"]) == 0
    before = contents(place)
    for option, folder in (("--video", "text"), ("--text", "video")):
        assert main(["export", "--run=run", f"{option}={folder}"]) == 1
        assert "contains weights of another model" in capsys.readouterr().err
    assert contents(place) == before
    (place / "text" / "vocab.txt").write_text("old")
    assert main(["export", "--run=run", "--video=video", "--text=text"]) == 0
    assert contents(place) == before


def test_published_weights_are_not_replaced(place, capsys):
    (place / "bert").mkdir()
    published = {"model_type": "bert", "transformers_version": "4.40.0"}
    (place / "bert" / "config.json").write_text(json.dumps(published))
    assert main(["export", "--run=run", "--text=bert"]) == 1
    assert "contains weights of another model" in capsys.readouterr().err


def test_other_files_in_such_folders_may_be_written(place, capsys):
    for _ in range(2):
        assert main(["search", "ring", *OF_RUN, "--out=run/found.png"]) == 0
        assert main(["search", "truth.jsonl", *OF_RUN, "--out=found.png"]) == 0
    assert main(["embed", *OF_RUN, "--out=of-run"]) == 0
    assert main(["embed", *OF_RUN, "--out=of-run"]) == 0


@pytest.mark.parametrize("kind", [EXPORT, FIGURES, RUN])
def test_a_folder_of_other_files_may_be_written(kind, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    check_folder(argparse.Namespace(out=str(tmp_path), run="none"), "out", kind)
    (tmp_path / "shard-00000-of-00001.index").write_text("")
    with pytest.raises(OutputError, match="contains a snapshot"):
        check_folder(argparse.Namespace(out=str(tmp_path)), "out", kind)
