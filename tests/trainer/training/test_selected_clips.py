"""A run on the clips that columns select: it resumes exactly, and only with the same columns."""

import json
import shutil

import numpy as np
import pytest

from trainer.cli.main import main
from trainer.configs.config import InputConfig
from trainer.configs.overrides import override
from trainer.data import columns
from trainer.data.columns import ColumnError
from trainer.data.mixture import Mixture
from trainer.data.selection import select
from trainer.data.snapshot import Snapshot
from trainer.distributed import multihost
from trainer.runs import lineage, run_folder
from trainer.runs.run_folder import RunError
from trainer.training import loop, selected_clips

pytestmark = pytest.mark.usefixtures("step_without_model")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return Snapshot.open(write_snapshot_at(folder, clips=16, height=18, width=18).folder)


@pytest.fixture(scope="module")
def score(snapshot, tmp_path_factory):
    """Returns a file with the score 0 to 15 of each clip, but for the given ones."""

    def write(**changed):
        path = tmp_path_factory.mktemp("columns") / "score.safetensors"
        values = np.arange(16, dtype=np.float32)
        values[[int(number[1:]) for number in changed]] = list(changed.values())
        columns.write(path, snapshot, "score", values, {"seed": path.parent.name})
        return path

    return write


@pytest.fixture(scope="module")
def config(noisy_config):
    settings = ["input.where=score > 3", "input.weights_column=score", "checkpoint_every=2"]
    return override(noisy_config, [*settings, "epochs=2"])


@pytest.fixture(scope="module")
def trained(config, snapshot, score, tmp_path_factory):
    """A run on the 12 clips with a score above 3: 6 steps of 4."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert loop.pretrain(config, snapshot.folder, run, columns=[score()])
    return run


def losses(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines}


def test_a_run_continues_to_the_same_bits(config, snapshot, score, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    assert max(losses(run)) == 6
    shutil.rmtree(run / "checkpoints" / "6")
    # Another file with the same values is the same column.
    assert loop.pretrain(config, snapshot.folder, run, columns=[score()])
    assert losses(run) == losses(trained)


def test_a_run_is_not_continued_with_other_columns(config, snapshot, score, trained):
    with pytest.raises(RunError, match=r"snapshot\.columns was \{'score': '\w+'\}, now"):
        loop.pretrain(config, snapshot.folder, trained, columns=[score(_0=1)])
    others = override(config, ["input.where=score > 4"])
    with pytest.raises(RunError, match=r"input\.where was .*score > 3.*, now .*score > 4"):
        loop.pretrain(others, snapshot.folder, trained, columns=[score()])
    with pytest.raises(ColumnError, match="there is no column score of"):
        loop.pretrain(config, snapshot.folder, trained)
    plain = override(config, ["input.where=", "input.weights_column="])
    with pytest.raises(RunError, match=r"snapshot\.columns was"):
        loop.pretrain(plain, snapshot.folder, trained)


def test_a_run_records_its_columns(config, trained):
    data = run_folder.read_data(trained)
    (recorded,) = lineage.column_entries(data)
    (path,) = lineage.column_files(data)
    assert recorded == {"score": columns.read(path).values_sha256}
    assert run_folder.read(trained)[0].input.where == ("score > 3",)
    unselected = override(config, ["input.where="])
    assert lineage.identity(config, data) != lineage.identity(unselected, data)


def test_the_command_says_what_is_selected(snapshot, score, tmp_path, capsys, toy):
    command = [
        *(
            "pretrain",
            "--preset=tiny",
            f"--snapshot={snapshot.folder}",
            f"--out={tmp_path / 'run'}",
        ),
        *(*toy, "--set=video.resolution=16", "--set=video.patch=8", "--set=video.frames=4"),
        *("--set=input.short_side=18", "--set=input.scale=1,1", "--max-steps=1"),
    ]
    selected = [f"--column={score()}", "--set=input.weights_column=score"]
    assert main([*command, *selected, "--where=score < 12 and score != 7"]) == 0
    said = capsys.readouterr().err
    assert "10 of 16 clips (where score < 12 and score != 7), weighted: at most 1.86" in said
    wrong = (["--where=a", "--set=input.where=b"], ["--where=score > 1, score < 3"])
    for arguments in wrong:
        assert main([*command, *arguments]) == 2
    assert main([*command, "--where=__import__('os')"]) == 1
    assert "is no comparison" in capsys.readouterr().err


@pytest.mark.parametrize(("largest", "twice"), [(15, False), (1000, True)])
def test_a_weight_that_fills_each_batch_is_noted(config, snapshot, score, largest, twice):
    one = override(config, ["input.where=", "batch=4"])  # 4 steps per epoch
    chosen = select([snapshot], [columns.read(score(c15=largest))], one.input)
    (line,) = selected_clips.describe(Mixture([snapshot], (), chosen), one)
    assert line.startswith(f"{snapshot.folder}: 15 of 16 clips, weighted: at most ")
    assert ("more than an epoch's 3 batches, so it is its own negative" in line) == twice


def test_processes_with_other_columns_are_refused(snapshot, score, monkeypatch):
    config = InputConfig(where=("score > 3",))
    clips = Mixture([snapshot], (), select([snapshot], [columns.read(score())], config))
    selected_clips.check_same_everywhere(clips)
    # The other process cannot be reached here.
    monkeypatch.setattr(multihost, "gather_from_processes", lambda ours: [*ours, "other"])
    with pytest.raises(ColumnError, match="with different values"):
        selected_clips.check_same_everywhere(clips)
