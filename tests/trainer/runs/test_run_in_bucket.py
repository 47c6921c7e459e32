"""A run in a bucket equals a run on a disk: trained, killed, resumed, used, started from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.cli.main import main
from trainer.configs.overrides import override
from trainer.data.folder import _store, read_file
from trainer.runs import checkpoint, run_folder
from trainer.runs.checkpoint import CheckpointError
from trainer.runs.run_folder import RunError
from trainer.runs.run_path import run_path
from trainer.training import loop, metric_writer
from trainer.training.initialization import Start
from trainer.training.loop import Monitoring

pytestmark = [
    pytest.mark.slow,
    # gcsfs hands a file over as one string of bytes.
    pytest.mark.filterwarnings("ignore:Sending a large body directly"),
]

TIMES = ("clips_per_second", "input_wait", "seconds", "step_seconds")


@pytest.fixture(scope="module")
def config(noisy_config):
    return override(noisy_config, ["max_steps=8", "checkpoint_every=2"])


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return write_snapshot_at(folder, clips=24, frames=4, height=18, width=24).folder


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory, config, snapshot):
    run = tmp_path_factory.mktemp("runs") / "on-disk"
    assert loop.pretrain(config, snapshot, run)
    return run


@pytest.fixture(scope="module")
def stored(lab, config, snapshot):
    """The same run in the bucket. Tests must not change it."""
    run = f"{lab}/runs/stored"
    assert loop.pretrain(config, snapshot, run, monitoring=Monitoring(profile=(2, 2)))
    return run


def measured(run):
    return [
        {name: value for name, value in record.items() if name not in TIMES}
        for record in metric_writer.read(run)
    ]


def files(run):
    """Return the file names below the run."""
    prefix = run.removeprefix("gs://") + "/"
    return {name.removeprefix(prefix) for name in _store("gs://").find(prefix)}


def assert_same_parameters(a, b):
    one, other = (checkpoint.load(run) for run in (a, b))
    assert one.step == other.step and one.tokenizer.pieces == other.tokenizer.pieces
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_the_same_run(on_disk, stored):
    assert measured(stored) == measured(on_disk) != []
    assert_same_parameters(stored, on_disk)
    assert_same_parameters(f"{stored}/checkpoints/6", on_disk / "checkpoints" / "6")
    for name in ("config.json", "vocab.txt", "data.json"):
        assert read_file(f"{stored}/{name}") == (on_disk / name).read_bytes()
    steps = {name.split("/")[1] for name in files(stored) if name.startswith("checkpoints/")}
    assert steps == {"6", "8"}
    assert any(name.startswith("profile/") for name in files(stored))


def test_tensorboard_can_read_its_events(stored, tmp_path):
    _store("gs://").get(f"{stored}/tensorboard/", str(tmp_path / "events/"), recursive=True)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))


def test_a_run_killed_while_it_saved_continues_to_the_same_bits(
    lab, stored, on_disk, config, snapshot
):
    run = f"{lab}/runs/killed"
    _store("gs://").copy(stored, run, recursive=True)
    _store("gs://").rm(f"{run}/checkpoints/8/commit_success.txt")  # written last
    _store("gs://").pipe_file(f"{run}/bad_steps.jsonl", b'{"step": 5}\n{"step": 7}\n')
    assert checkpoint.load(run).step == 6
    assert run_folder.checkpoint_steps(run_path(run) / "checkpoints") == [6]
    assert loop.pretrain(config, snapshot, run)
    assert measured(run) == measured(on_disk)
    assert_same_parameters(run, on_disk)
    assert metric_writer.read(run)[5]["seconds"] == metric_writer.read(stored)[5]["seconds"]
    assert read_file(f"{run}/bad_steps.jsonl") == b'{"step": 5}\n'
    with pytest.raises(RunError, match=f"{run} was started with .*seed was 5, now 6"):
        loop.pretrain(override(config, ["seed=6"]), snapshot, run)


def test_damage_there_is_noticed_and_the_checkpoint_before_is_used(
    lab, stored, on_disk, config, snapshot, capfd
):
    run = f"{lab}/runs/damaged"
    _store("gs://").copy(stored, run, recursive=True)
    name = max(name for name in files(run) if name.startswith("checkpoints/8/params/d/"))
    whole = bytearray(read_file(f"{run}/{name}"))
    whole[len(whole) // 2] ^= 4
    _store("gs://").pipe_file(f"{run}/{name}", bytes(whole))
    assert checkpoint.load(run).step == 6
    assert f"8 is unusable: {name.removeprefix('checkpoints/8/')} has CRC-32C" in (
        capfd.readouterr().err
    )
    assert loop.pretrain(config, snapshot, run)
    assert measured(run) == measured(on_disk)
    assert_same_parameters(run, on_disk)
    kept = {name.split("/")[1] for name in files(run) if name.startswith("checkpoints/")}
    assert kept == {"6", "8", "8.damaged"}


def test_others_start_from_it_and_use_it(stored, config, snapshot, on_disk, tmp_path, capfd):
    start, known = Start(run=run_path(stored)), checkpoint.load(on_disk)
    assert start.configure(config) == known.config
    fresh = jax.tree.map(jnp.zeros_like, known.params)
    jax.tree.map(np.testing.assert_array_equal, start.fill(fresh, known.config), known.params)
    assert start.identity() == Start(run=on_disk).identity()
    out = tmp_path / "features"
    argv = ["embed", "--run", stored, "--snapshot", str(snapshot), "--feature=clip"]
    assert main([*argv, f"--out={out}"]) == 0
    assert f"{stored}: parameters of step 8" in capfd.readouterr().err
    assert list(out.glob("*.safetensors"))


def test_a_folder_without_a_run_in_a_bucket_is_refused(lab, stored, config, snapshot):
    with pytest.raises(RunError, match=f"{lab}/none is not a training run"):
        checkpoint.load(f"{lab}/none")
    bare = f"{lab}/runs/bare"
    for name in ("config.json", "vocab.txt"):
        _store("gs://").copy(f"{stored}/{name}", f"{bare}/{name}")
    with pytest.raises(CheckpointError, match=f"run {bare} has no checkpoint yet"):
        checkpoint.load(bare)
    with pytest.raises(OSError, match="no such object or bucket") as raised:
        loop.pretrain(config, snapshot, "gs://no-such-bucket/run")
    assert raised.value.filename == "gs://no-such-bucket/run/run.lock"


@pytest.mark.parametrize(
    ("argv", "status", "complaint"),
    [
        (("embed", "--run=r", "--snapshot=s", "--out=gs://b/x"), 2, "gs://b/x is in a bucket"),
        (("embed", "--run=r", "--snapshot=s", "--out=s3://b/x"), 2, "s3://b/x is in a bucket"),
        (
            ("search", "a", "--run=r", "--snapshot=s", "--out=s3://b/x.png"),
            1,
            "s3://b/x.png is in a bucket",
        ),
        (("evaluate", "--run=s3://b/x", "--snapshot=s"), 2, "s3://b/x cannot be a run"),
        (
            ("pretrain", "--preset=tiny", "--snapshot=s", "--out=s3://b/x"),
            *(2, "s3://b/x cannot be a run"),
        ),
        (
            ("pretrain", "--preset=tiny", "--snapshot=s", "--out=r", "--start-from=s3://b/x"),
            *(2, "s3://b/x cannot be a run"),
        ),
        (
            (
                "finetune",
                "--task=qa",
                "--preset=msvd-qa",
                "--run=r",
                "--snapshot=s",
                "--out=s3://b",
            ),
            *(2, "s3://b cannot be a run"),
        ),
        (("export", "--run=r", "--video=gs://b/x"), 2, "gs://b/x is in a bucket"),
        (("search", "a", "--run=r", "--snapshot=s", "--out=gs://b/x.png"), 1, "is in a bucket"),
        (
            ("pretrain", "--preset=tiny", "--snapshot=s", "--out=r", "--text-weights=gs://b/x"),
            *(2, "gs://b/x is in a bucket"),
        ),
    ],
)
def test_refused_bucket_paths_create_no_folder(
    argv, status, complaint, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == status
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
