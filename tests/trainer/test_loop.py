import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from trainer import checkpoint, loop, metrics, run_folder
from trainer.configs.overrides import override
from trainer.data.snapshot import SnapshotError
from trainer.loop import TrainingError
from trainer.run_folder import RunError

# A run in a process of its own, as the command line makes it.
TRAIN = """
import sys
from trainer import loop
from trainer.configs.config import Config
loop.pretrain(Config.from_json(sys.argv[1]), sys.argv[2], sys.argv[3])
"""
# How fast it went is the one thing that may differ between two runs.
TIMES = ("clips_per_second", "input_wait", "seconds")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return write_snapshot_at(folder, clips=24, frames=4, height=18, width=24).folder


@pytest.fixture(scope="module")
def undisturbed(noisy_config, tmp_path_factory, snapshot):
    """A run from start to end. Tests leave it as it is."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert loop.pretrain(noisy_config, snapshot, run) is None
    return run


def measured(run):
    return [
        {name: value for name, value in record.items() if name not in TIMES}
        for record in metrics.read(run)
    ]


def wait_for(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_same_parameters(a, b):
    leaves = zip(*(jax.tree.leaves(checkpoint.load(run).params) for run in (a, b)), strict=True)
    assert all((x == y).all() for x, y in leaves)


def test_a_run_killed_at_any_step_continues_to_the_same_bits(
    noisy_config, snapshot, undisturbed, tmp_path
):
    expected = measured(undisturbed)
    assert [record["step"] for record in expected] == list(range(1, 19))
    assert [record["epoch"] for record in expected[::6]] == [0, 1, 2]

    run = tmp_path / "killed"
    saved = run / "checkpoints" / "4"
    child = subprocess.Popen(
        [sys.executable, "-c", TRAIN, noisy_config.to_json(), snapshot, run],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: child.poll() is not None or saved.exists())
        wait_for(lambda: child.poll() is not None or len(metrics.read(run)) > 5)
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    lost = metrics.read(run)
    assert len(lost) < 18

    assert loop.pretrain(noisy_config, snapshot, run) is None
    assert measured(run) == expected
    assert_same_parameters(run, undisturbed)
    # It did continue: what came before the checkpoint was not measured again.
    assert metrics.read(run)[3]["seconds"] == lost[3]["seconds"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_where_none_was_due(
    noisy_config, snapshot, tmp_path, number, capfd
):
    config = override(
        noisy_config, ["checkpoint_every=100000", "epochs=1000", "max_steps=5000", "log_every=5"]
    )
    run = tmp_path / "run"
    before = signal.getsignal(number)

    def send():
        wait_for(lambda: len(metrics.read(run)) >= 3)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    assert loop.pretrain(config, snapshot, run) == number
    sender.join()
    assert signal.getsignal(number) is before
    assert "saving a checkpoint" in capfd.readouterr().err
    step = checkpoint.load(run).step
    assert 10 <= step < 5000
    # Nothing is measured that an undisturbed run would not measure.
    steps = [record["step"] for record in measured(run)]
    assert steps == [1, *range(5, step + 1, 5)]


def test_a_finished_run_is_left_alone(noisy_config, snapshot, undisturbed):
    def files():
        return {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}

    before = files()
    assert loop.pretrain(noisy_config, snapshot, undisturbed) is None
    assert files() == before


def test_a_run_keeps_what_it_was_started_with(noisy_config, undisturbed):
    started, tokeniser = run_folder.read(undisturbed)
    # The vocabulary's limit became its size.
    assert 20 < len(tokeniser.pieces) < noisy_config.text.vocabulary
    assert started == override(noisy_config, [f"text.vocabulary={len(tokeniser.pieces)}"])
    assert checkpoint.load(undisturbed).step == 18
    record = metrics.read(undisturbed)[-1]
    assert record.keys() >= {
        "step", "epoch", "loss", "temporal", "grounding", "contrast", "group_entropy",
        "gradient_norm", "learning_rate", "clips_per_second", "input_wait", "seconds",
    }  # fmt: skip
    assert 0 <= record["input_wait"] <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["joint_width=32", "seed=1"], "joint_width was 16, now 32; seed was 5, now 1"),
        (["max_steps=1"], "max_steps was None, now 1"),
        (
            ["text.vocabulary=150"],
            "vocabulary was trained, 200 pieces at most, now trained, 150 pieces at most",
        ),
    ],
)
def test_a_run_is_not_continued_with_other_settings(
    noisy_config, snapshot, undisturbed, settings, message
):
    with pytest.raises(RunError, match=f"another configuration: {message}.*--out"):
        loop.pretrain(override(noisy_config, settings), snapshot, undisturbed)


def test_a_run_is_not_continued_on_other_data(
    noisy_config, snapshot, undisturbed, write_snapshot, tmp_path
):
    other = write_snapshot("other", clips=23, frames=4, height=18, width=18).folder
    with pytest.raises(RunError, match=r"snapshot.records was 24, now 23"):
        loop.pretrain(noisy_config, other, undisturbed)
    (tmp_path / "vocab.txt").write_bytes((undisturbed / "vocab.txt").read_bytes() + b"more\n")
    with pytest.raises(RunError, match="another vocabulary"):
        loop.pretrain(noisy_config, snapshot, undisturbed, tmp_path / "vocab.txt")


def test_a_run_of_one_snapshot_does_not_go_on_with_two(noisy_config, snapshot, undisturbed):
    with pytest.raises(RunError, match=r"snapshot\.2\.records was None, now 24"):
        loop.pretrain(noisy_config, [snapshot, snapshot], undisturbed)
    with pytest.raises(loop.TrainingError, match=r"input\.weights has 2 for 1 snapshots"):
        loop.pretrain(override(noisy_config, ["input.weights=1,2"]), snapshot, undisturbed)


def test_a_run_may_begin_to_leave_out_corrupt_records(
    noisy_config, snapshot, undisturbed, tmp_path
):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    assert loop.pretrain(override(noisy_config, ["input.on_corrupt=skip"]), snapshot, run) is None
    assert json.loads((run / "config.json").read_text())["input"]["on_corrupt"] == "skip"


def test_a_given_vocabulary_is_used(noisy_config, snapshot, undisturbed, tmp_path):
    first, second, *rest = (undisturbed / "vocab.txt").read_text().splitlines()
    pieces = (*rest, second, first)
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    loop.pretrain(noisy_config, snapshot, tmp_path / "run", tmp_path / "vocab.txt")
    assert run_folder.read(tmp_path / "run")[1].pieces == pieces


def test_a_run_that_went_wrong_before_its_first_checkpoint_may_start_again(
    noisy_config, snapshot, undisturbed, tmp_path
):
    run = tmp_path / "run"
    # The first step's learning rate is 0, the second one's is not.
    wild = override(noisy_config, ["optimiser.learning_rate=1e38", "optimiser.clip_norm=1e38"])
    with pytest.raises(TrainingError, match=r"the loss is \w+ at step [34] \(no checkpoint"):
        loop.pretrain(wild, snapshot, run)
    assert loop.pretrain(noisy_config, snapshot, run) is None
    assert measured(run) == measured(undisturbed)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["batch=32"], TrainingError, "a batch of 32 clips cannot be drawn from 24 records"),
        (["video.frames=8"], SnapshotError, "has 4 frames a clip, the model wants 8"),
        (["text.vocabulary=20"], TrainingError, "a vocabulary of 20 pieces cannot hold"),
        (["input.short_side=8"], TrainingError, "nothing is left to crop"),
    ],
)
def test_what_does_not_fit_the_snapshot_leaves_no_run(
    noisy_config, snapshot, tmp_path, settings, error, message
):
    with pytest.raises(error, match=message):
        loop.pretrain(override(noisy_config, settings), snapshot, tmp_path / "run")
    assert not (tmp_path / "run").exists()
