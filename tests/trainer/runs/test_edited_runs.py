"""Files of a run that were edited or damaged are compared with the copies in its checkpoint."""

import json
import shutil

import pytest

from trainer.cli.main import main
from trainer.configs.overrides import override
from trainer.runs import checkpoint, run_folder
from trainer.runs.checkpoint import CheckpointError, check_settings
from trainer.training import loop


@pytest.fixture
def run(untrained_run, tmp_path):
    return shutil.copytree(untrained_run, tmp_path / "run")


def edit(path, **fields):
    values = json.loads(path.read_text())
    for name, value in fields.items():
        *sections, field = name.split(".")
        inside = values
        for section in sections:
            inside = inside[section]
        inside[field] = value
    path.write_text(json.dumps(values))


def lines(run, change):
    path = run / "vocab.txt"
    pieces = path.read_text().splitlines()
    change(pieces)
    path.write_text("".join(piece + "\n" for piece in pieces))


def swap(pieces):
    pieces[10], pieces[11] = pieces[11], pieces[10]


def repeat(pieces):
    pieces[11] = pieces[10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, r"run/vocab\.txt differs from the copy .*line 11 is '.', but '.' in the checkpoint"),
        (repeat, r"run/vocab\.txt differs from the copy .*line 12"),
        (lambda pieces: pieces.pop(), r"run/vocab\.txt differs from the copy .*absent, but"),
    ],
    ids=["swapped", "repeated", "cut"],
)
def test_an_edited_vocabulary_is_refused(change, message, run):
    before = checkpoint.load(run / "checkpoints" / "0")
    lines(run, change)
    for reads in (checkpoint.load, check_settings):
        with pytest.raises(
            CheckpointError, match=message + ".*restore the run's original vocab.txt"
        ):
            reads(run)
    assert checkpoint.load(run / "checkpoints" / "0").tokenizer.pieces == before.tokenizer.pieces


def test_edited_settings_of_the_tokenizer_are_refused(run):
    edit(run / "tokenizer_config.json", do_lower_case=False)
    with pytest.raises(
        CheckpointError, match=r"tokenizer_config\.json differs .*lowercase is False"
    ):
        checkpoint.load(run)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text.norm_eps", 0.5),
        ("video.pixel_mean", [0.1, 0.2, 0.3]),
        ("input.short_side", 20),
        ("text.tokens", 8),
        ("optimizer.learning_rate", 0.5),
        ("seed", 6),
    ],
)
def test_an_edited_field_is_refused(name, value, run, write_snapshot, capsys):
    saved = checkpoint.load(run).config
    edit(run / "config.json", **{name: value})
    with pytest.raises(CheckpointError, match=rf"config\.json differs .*{name} is .*, but"):
        checkpoint.load(run)
    # The same edit of the command makes it no better.
    said = json.dumps(value).strip("[]").replace(" ", "")
    wanted = override(saved, [f"{name}={said}"])
    snapshot = write_snapshot(clips=4, height=18, width=18).folder
    with pytest.raises(CheckpointError, match=rf"config\.json differs from .*{name} is"):
        loop.pretrain(wanted, snapshot, run)
    assert checkpoint.load(run / "checkpoints" / "0").config == saved


def test_changeable_fields_may_differ(run):
    edit(run / "config.json", **{"mesh.fsdp": 2, "log_every": 7, "checkpoint_keep": 9})
    check_settings(run)
    assert checkpoint.load(run).config.log_every == 7


def test_fields_of_later_releases_and_old_names_are_no_edits(run):
    values = json.loads((run / "config.json").read_text())
    values["optimiser"] = values.pop("optimizer")
    del values["evaluate_clips"], values["text"]["norm_eps"]
    (run / "config.json").write_text(json.dumps(values))
    check_settings(run)
    checkpoint.load(run)


def test_an_edited_task_is_refused(untrained_run, tmp_path):
    saved = checkpoint.load(untrained_run)
    task = {
        "name": "qa",
        "config": {},
        "classes": ["yes", "no"],
        "trained_on": {"datasets": ["test"], "videos": ["a"]},
    }
    assert run_folder.find_edited(
        untrained_run, saved.config, saved.tokenizer, saved.config, saved.tokenizer, task
    ) == ("task.json", "the task differs")
    shutil.copytree(untrained_run, tmp_path / "run")
    (tmp_path / "run" / "task.json").write_text(json.dumps(task))
    assert not run_folder.find_edited(
        tmp_path / "run", saved.config, saved.tokenizer, saved.config, saved.tokenizer, task
    )


def test_a_search_says_which_file_to_put_back(run, write_snapshot, capsys):
    snapshot = write_snapshot(clips=4, height=18, width=24).folder
    lines(run, swap)
    assert main(["search", "ring", f"--run={run}", f"--snapshot={snapshot}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "restore the run's original vocab.txt" in line
        and "checkpoints/0, which has its own" in line
    )
