import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import signal
import threading
import time

import jax
import numpy as np
import pytest

from tests.trainer import plain_step
from trainer.configs.overrides import override
from trainer.data.batches import train_batches
from trainer.data.mixture import Mixture, MixtureError
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.distributed.mesh import one_device
from trainer.evaluation import retrieval
from trainer.exposure.exposure import exposure, listed
from trainer.inference.encoder import Encoder, embed_clips
from trainer.runs import checkpoint, run_folder
from trainer.runs.run_folder import RunError
from trainer.training import jsonl_log, loop, metric_writer
from trainer.training.bad_step_report import BadStepError
from trainer.training.initialization import Start
from trainer.training.loop import Monitoring, TrainingError

pytestmark = pytest.mark.usefixtures("step_without_model")

# A run in a process of its own, slow enough to be killed.
TRAIN = """
import sys, time
from tests.trainer import plain_step
from trainer.configs.config import Config
from trainer.training import loop

class Slow(plain_step.Pretraining):
    def train_step(self, *given):
        time.sleep(0.1)
        return super().train_step(*given)

loop.Pretraining = Slow
loop.pretrain(Config.from_json(sys.argv[1]), sys.argv[2], sys.argv[3])
"""
# How fast it went is the one thing that may differ between two runs.
TIMES = ("clips_per_second", "input_wait", "seconds", "step_seconds")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return write_snapshot_at(folder, clips=24, frames=4, height=18, width=24).folder


@pytest.fixture(scope="module")
def undisturbed(noisy_config, tmp_path_factory, snapshot):
    """A complete run. Tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert loop.pretrain(noisy_config, snapshot, run)
    return run


def measured(run):
    return [
        {name: value for name, value in record.items() if name not in TIMES}
        for record in metric_writer.read(run)
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
    noisy_config, snapshot, undisturbed, tmp_path, forks
):
    expected = measured(undisturbed)
    assert [record["step"] for record in expected] == list(range(1, 19))
    assert [record["epoch"] for record in expected[::6]] == [0, 1, 2]

    run = tmp_path / "killed"
    saved = run / "checkpoints" / "4"
    child = forks.start(TRAIN, noisy_config.to_json(), snapshot, run)
    try:
        wait_for(lambda: child.poll() is not None or saved.exists())
        wait_for(lambda: child.poll() is not None or len(metric_writer.read(run)) > 5)
    finally:
        child.kill()
    assert child.returncode == -signal.SIGKILL
    lost = metric_writer.read(run)
    assert len(lost) < 18

    assert loop.pretrain(noisy_config, snapshot, run)
    assert measured(run) == expected
    assert_same_parameters(run, undisturbed)
    # It did continue: what came before the checkpoint was not measured again.
    assert metric_writer.read(run)[3]["seconds"] == lost[3]["seconds"]


def test_a_signal_saves_a_checkpoint_where_none_was_due(noisy_config, snapshot, tmp_path, capfd):
    config = override(
        noisy_config, ["checkpoint_every=100000", "epochs=1000", "max_steps=5000", "log_every=5"]
    )
    run = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)

    def send():
        wait_for(lambda: len(metric_writer.read(run)) >= 3)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    assert not loop.pretrain(config, snapshot, run)
    sender.join()
    assert signal.getsignal(signal.SIGTERM) is before
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
    assert loop.pretrain(noisy_config, snapshot, undisturbed)
    assert files() == before


def test_a_run_keeps_its_initial_settings(noisy_config, undisturbed):
    started, tokenizer = run_folder.read(undisturbed)
    # The vocabulary's limit became its size.
    assert 20 < len(tokenizer.pieces) < noisy_config.text.vocabulary
    assert started == override(noisy_config, [f"text.vocabulary={len(tokenizer.pieces)}"])
    assert checkpoint.load(undisturbed).step == 18
    record = metric_writer.read(undisturbed)[-1]
    assert record.keys() >= {
        "step", "epoch", "loss", "temporal", "grounding", "contrast", "group_entropy",
        "gradient_norm", "learning_rate", "seconds", *TIMES,
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


def test_a_run_of_one_snapshot_does_not_resume_with_two(
    noisy_config, snapshot, undisturbed, write_snapshot
):
    other = write_snapshot("other", clips=23, frames=4, height=18, width=18).folder
    with pytest.raises(RunError, match=r"snapshot\.2\.records was None, now 23"):
        loop.pretrain(noisy_config, [snapshot, other], undisturbed)
    with pytest.raises(MixtureError, match=r"input\.weights has 2 for 1 snapshots"):
        loop.pretrain(override(noisy_config, ["input.weights=1,2"]), snapshot, undisturbed)


def test_a_run_may_begin_to_leave_out_corrupt_records(
    noisy_config, snapshot, undisturbed, tmp_path
):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    assert loop.pretrain(override(noisy_config, ["input.on_corrupt=skip"]), snapshot, run)
    assert json.loads((run / "config.json").read_text())["input"]["on_corrupt"] == "skip"


def test_a_given_vocabulary_is_used(noisy_config, snapshot, undisturbed, tmp_path):
    first, second, *rest = (undisturbed / "vocab.txt").read_text().splitlines()
    pieces = (*rest, second, first)
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    loop.pretrain(noisy_config, snapshot, tmp_path / "run", tmp_path / "vocab.txt")
    assert run_folder.read(tmp_path / "run")[1].pieces == pieces


def test_settings_without_effect_on_results_may_change_on_resume(
    noisy_config, snapshot, undisturbed, tmp_path
):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    changed = override(noisy_config, ["on_bad_step=skip", "checkpoint_keep=5", "log_every=2"])
    assert loop.pretrain(changed, snapshot, run)
    assert run_folder.read(run)[0] == override(
        changed, [f"text.vocabulary={run_folder.read(undisturbed)[0].text.vocabulary}"]
    )


def test_a_run_resumes_with_less_memory_or_other_devices(
    noisy_config, snapshot, undisturbed, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run, ignore=shutil.ignore_patterns("16", "18"))
    shutil.copytree(undisturbed / "checkpoints" / "16", run / "checkpoints" / "16")
    assert loop.pretrain(override(noisy_config, ["compute.microbatches=2"]), snapshot, run)
    expected = measured(undisturbed)
    for record, other in zip(measured(run)[16:], expected[16:], strict=True):
        assert record["step"] == other["step"]
        assert record["loss"] == pytest.approx(other["loss"], rel=1e-5)
    run_folder.start_or_continue(
        run,
        override(noisy_config, ["mesh.fsdp=4", "compute.remat=block", "compute.attention=plain"]),
        Mixture([Snapshot.open(snapshot)]),
        vocabulary=None,
        origin=Start().origin(noisy_config),
        steps=18,
    )
    assert run_folder.read(run)[0].mesh.fsdp == 4
    with pytest.raises(RunError, match=r"compute\.dtype was float32, now bfloat16"):
        loop.pretrain(override(noisy_config, ["compute.dtype=bfloat16"]), snapshot, run)


def test_a_model_larger_than_memory_is_refused(noisy_config, snapshot, tmp_path):
    large = override(noisy_config, ["joint_width=2000000000"])  # 128 GB for each projection
    with pytest.raises(TrainingError, match=r"optimizer state exceed .* mesh\.fsdp=2"):
        loop.pretrain(large, snapshot, tmp_path / "run")


def test_a_run_that_went_wrong_before_its_first_checkpoint_may_start_again(
    noisy_config, snapshot, undisturbed, tmp_path
):
    run = tmp_path / "run"
    # The first step's learning rate is 0, the second one's is not.
    wild = override(noisy_config, ["optimizer.learning_rate=1e38", "optimizer.clip_norm=1e38"])
    with pytest.raises(
        BadStepError, match=r"(is (inf|nan)|non-finite) at step [234] \(no ch"
    ) as raised:
        loop.pretrain(wild, snapshot, run)
    (record,) = jsonl_log.read(run / "bad_steps.jsonl")
    assert f"at step {record['step']} " in str(raised.value)
    tokenizer = run_folder.read(run)[1]
    batches = train_batches(Mixture([Snapshot.open(snapshot)]), tokenizer, noisy_config)
    step, _, clip_ids = next(itertools.islice(batches, record["step"] - 1, None))
    batches.close()
    assert (step + 1, clip_ids) == (record["step"], record["clip_ids"])
    assert f"with clips {clip_ids[0]}, {clip_ids[1]}, {clip_ids[2]} and 1 more" in str(raised.value)

    assert loop.pretrain(noisy_config, snapshot, run)
    assert measured(run) == measured(undisturbed)
    assert jsonl_log.read(run / "bad_steps.jsonl") == []


def test_skipped_steps_change_nothing_but_the_count_of_steps(
    noisy_config, snapshot, undisturbed, tmp_path
):
    # A corrupt record in addition: the report names its replacement.
    damaged = shutil.copytree(snapshot, tmp_path / "damaged")
    corrupt = Snapshot.open(damaged).locate(7)
    with open(corrupt.shard, "r+b") as shard:
        shard.seek(corrupt.offset + 20)
        shard.write(b"\xff\xff")
    all_bad = override(
        noisy_config,
        [
            *("on_bad_step=skip", "spike.gradient_norm=1e-6", "skip_in_a_row=18"),
            "input.on_corrupt=skip",
        ],
    )
    run = tmp_path / "run"
    # To make a vocabulary all are read.
    assert loop.pretrain(all_bad, damaged, run, undisturbed / "vocab.txt")
    config, mesh = run_folder.read(run)[0], one_device()
    with checkpoint.Checkpoints(run / "checkpoints") as checkpoints:
        state = checkpoints.restore(18, plain_step.state_shapes(config, mesh))
    fresh = plain_step.init_state(config, mesh)
    for kept, first in zip(
        jax.tree.leaves((state.params, state.optimizer)),
        jax.tree.leaves((fresh.params, fresh.optimizer)),
        strict=True,
    ):
        assert (kept == first).all()
    assert (state.watch.skipped, state.watch.in_a_row, state.watch.good) == (18, 18, 0)
    records = metric_writer.read(run)
    assert [record["skipped_steps"] for record in records] == list(range(1, 19))
    # The schedule waits, as the optimizer's other counts do.
    assert {record["learning_rate"] for record in records} == {0.0}
    assert len({record["loss"] for record in records}) == 18  # other clips, other noise
    bad = jsonl_log.read(run / "bad_steps.jsonl")
    assert [record["step"] for record in bad] == list(range(1, 19))
    assert all("above spike.gradient_norm" in record["reason"] for record in bad)
    batches = train_batches(Mixture([Snapshot.open(damaged)]), run_folder.read(run)[1], config)
    assert [record["clip_ids"] for record in bad] == [ids for _, _, ids in batches]
    assert not any(corrupt.clip_id in record["clip_ids"] for record in bad)
    # The run's exposure to all videos is that log.
    whole = Snapshot.open(snapshot)  # the videos of these clips are only in their records
    found = exposure(run, {clip.video_id for clip in map(whole.clip, range(24))}, [whole])
    drawn = [(line["step"], line["row"], line["clip_id"]) for line in listed(found.runs[0])]
    assert drawn == [
        (record["step"], row, clip_id)
        for record in bad
        for row, clip_id in enumerate(record["clip_ids"])
    ]
    replaced = jsonl_log.read(run / "skipped_clips.jsonl")
    assert len(replaced) == sum(record["corrupt_records"] for record in records) == 3


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["batch=32"], TrainingError, "a batch of 32 clips cannot be drawn from 24 records"),
        (["video.frames=8"], SnapshotError, "has 4 frames per clip, but the model takes 8"),
        (
            ["cut_and_paste.enabled=false"],
            TrainingError,
            "set loss.temporal_weight=0, or cut_and_pa",
        ),
        (["text.vocabulary=20"], TrainingError, "a vocabulary of 20 pieces is smaller than"),
        (["input.short_side=8"], TrainingError, "is below resolution"),
    ],
)
def test_settings_that_do_not_fit_the_snapshot_create_no_run(
    noisy_config, snapshot, tmp_path, settings, error, message
):
    with pytest.raises(error, match=message):
        loop.pretrain(override(noisy_config, settings), snapshot, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def watched_config(noisy_config):
    settings = ["average_decay=0.6", "evaluate_every=9", "evaluate_clips=7"]
    return override(noisy_config, ["checkpoint_every=1", "checkpoint_keep=18", *settings])


@pytest.fixture(scope="module")
def monitoring(snapshot):
    return Monitoring(snapshot, (3, 4), wandb_project="tests", allow_seen=True)


@pytest.fixture(scope="module")
def watched(watched_config, monitoring, tmp_path_factory, snapshot):
    """A complete run that keeps all checkpoints and metrics."""
    run = tmp_path_factory.mktemp("runs") / "watched"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WANDB_MODE", "offline")
        assert loop.pretrain(watched_config, snapshot, run, monitoring=monitoring)
    return run


def test_looking_at_a_run_does_not_change_it(watched, undisturbed):
    losses, others = (
        [record["loss"] for record in metric_writer.read(run)] for run in (watched, undisturbed)
    )
    assert losses == pytest.approx(others, rel=1e-5)


def test_retrieval_is_measured_on_the_way_and_at_the_end(watched, snapshot):
    figures = {
        record["step"]: record for record in metric_writer.read(watched) if "t2v_R@1" in record
    }
    assert list(figures) == [9, 18]
    loaded = checkpoint.load(watched)
    encoder = Encoder(loaded.config, loaded.tokenizer, loaded.params)
    spread = np.arange(7) * 24 // 7
    texts, clips = embed_clips(Snapshot.open(snapshot), encoder, lambda *_: None, spread)
    similarity = encoder.similarity([text.caption for text in texts], clips.clip)
    for direction, found in (("t2v", similarity), ("v2t", similarity.T)):
        expected = retrieval.recalls(retrieval.ranks(found))
        assert {name: figures[18][f"{direction}_{name}"] for name in expected} == expected


def test_the_average_of_the_parameters_is_kept_and_used(watched, watched_config):
    config, mesh = run_folder.read(watched)[0], one_device()
    with checkpoint.Checkpoints(watched / "checkpoints") as checkpoints:
        before, after = (
            checkpoints.restore(step, plain_step.state_shapes(config, mesh)) for step in (12, 13)
        )
    loaded = checkpoint.load(watched)
    assert loaded.averaged
    rest = 1 - min(0.6, 13 / 22)
    for a, b, p in zip(
        *(jax.tree.leaves(tree) for tree in (before.average, after.average, after.params)),
        strict=True,
    ):
        np.testing.assert_allclose(b, a + rest * (p - a), rtol=1e-5, atol=1e-7)
    with checkpoint.Checkpoints(watched / "checkpoints") as checkpoints:
        last = checkpoints.restore(18, plain_step.state_shapes(config, mesh))
    used, averages = jax.tree.leaves(loaded.params), jax.tree.leaves(last.average)
    assert all((x == y).all() for x, y in zip(used, averages, strict=True))
    assert any((x != y).any() for x, y in zip(used, jax.tree.leaves(last.params), strict=True))


def test_a_run_that_is_looked_at_continues_to_the_same_bits(
    watched, watched_config, snapshot, tmp_path
):
    run = shutil.copytree(watched, tmp_path / "run")
    for step in range(8, 19):
        shutil.rmtree(run / "checkpoints" / str(step))
    assert loop.pretrain(
        watched_config, snapshot, run, monitoring=Monitoring(snapshot, allow_seen=True)
    )
    assert measured(run) == measured(watched)
    assert_same_parameters(run, watched)


def test_metrics_go_to_weights_and_biases(watched):
    run_id = json.loads((watched / "wandb.json").read_text())["id"]
    (record,) = watched.glob("wandb/offline-run-*/*.wandb")
    assert record.name == f"run-{run_id}.wandb"
    written = record.read_bytes()
    assert all(name in written for name in (b"gradient_norm", b"t2v_R@1", b"step_seconds"))


def test_a_trace_of_the_wanted_steps_is_written(watched):
    (trace,) = watched.glob("profile/plugins/profile/*/*.xplane.pb")
    assert b"train_step" in trace.read_bytes()


def test_a_run_continues_on_the_version_that_a_tag_had_when_it_began(
    noisy_config, snapshot, undisturbed, tmp_path, capsys
):
    corpus, runs = tmp_path / "corpus", tmp_path / "runs"
    shutil.copytree(snapshot, corpus / "1.0.0")
    shutil.copytree(snapshot, corpus / "1.1.0")
    manifest = corpus / "1.1.0" / "manifest.json"
    values = json.loads(manifest.read_text()) | {"inputsSha256": "0" * 64}
    manifest.write_text(json.dumps(values))
    (corpus / "tags").mkdir()

    def tag(number, version):
        data = (corpus / version / "manifest.json").read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        move = {"schema_version": "1.5", "folder": version, "manifest_sha256": sha256}
        (corpus / "tags" / f"latest.{number:06d}.json").write_text(json.dumps(move))

    tag(1, "1.0.0")
    latest = f"{corpus}@latest"
    assert loop.pretrain(noisy_config, latest, runs / "first")
    data = run_folder.read_data(runs / "first")
    assert data["lineage"]["snapshots"] == [f"{corpus}/1.0.0"]
    assert "latest" not in json.dumps([data, json.loads((runs / "first/config.json").read_text())])
    tag(2, "1.1.0")
    longer = dataclasses.replace(noisy_config, checkpoint_every=7)
    capsys.readouterr()
    assert loop.pretrain(longer, latest, runs / "first")
    assert f"the run continues on {corpus}/1.0.0" in capsys.readouterr().err
    assert measured(runs / "first") == measured(undisturbed)
    with pytest.raises(RunError, match="inputs_sha256"):
        loop.pretrain(noisy_config, corpus / "1.1.0", runs / "first")
    with pytest.raises(RunError, match="was not trained on"):
        run_folder.check_trained_on(runs / "first", Snapshot.open(latest))
