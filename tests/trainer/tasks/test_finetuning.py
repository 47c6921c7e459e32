import dataclasses
import json
import shutil
import socket
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

from trainer.ablation import measures
from trainer.cli import tasks
from trainer.cli.main import main
from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.data.annotations import read_annotations
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.distributed.mesh import one_device
from trainer.exposure.exposure import exposure, listed
from trainer.method.train_step import init_state
from trainer.runs import checkpoint, run_folder
from trainer.tasks import finetuning
from trainer.tasks.task import TaskError, Views
from trainer.training import metric_writer
from trainer.training.initialization import Start

ANSWERS = ("ring", "disc", "two")


def annotate(clip, number, video="video"):
    """Annotate one video per record, with one of three classes, two captions and two questions."""
    clip.video_id = f"{video}{number}"
    clip.labels.append(f"Class{number % 3}")
    clip.captions.extend([clip.caption, f"Look: a {ANSWERS[number % 3]}"])
    for k in range(2):
        clip.questions.add(
            question_id=str(2 * number + k),
            text=f"{('what', 'who')[k]} is a red ring?",
            answer=ANSWERS[(number + k) % 3] if number else "never",  # one answer is rare
            type=("what", "who")[k],
        )


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return write_snapshot_at(
        folder, clips=12, frames=4, height=18, width=24, annotate=annotate
    ).folder


@pytest.fixture(scope="module")
def tested(tmp_path_factory, write_snapshot_at):
    """Other videos with the same questions."""
    folder = tmp_path_factory.mktemp("data") / "tested"
    return write_snapshot_at(
        folder, clips=12, frames=4, height=18, width=24, annotate=partial(annotate, video="unseen")
    ).folder


def arguments(task, preset, run, snapshot, out, *settings):
    """A few steps at sizes that compile soon, two of them before a checkpoint."""
    argv = ["finetune", f"--task={task}", f"--preset={preset}", f"--run={run}", f"--out={out}"]
    more = ["batch=4", "epochs=2", "checkpoint_every=2", "checkpoint_keep=9", "log_every=1"]
    settings = [f"--set={setting}" for setting in (*more, "optimizer.name=adamw", *settings)]
    return [*argv, f"--snapshot={snapshot}", "--max-steps=4", *settings]


def fail_on_skip(skipped):
    pytest.fail(skipped.message)


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def figures(task, run, snapshot, tmp_path, *more):
    out = tmp_path / "figures.json"
    argv = ["evaluate", f"--task={task}", f"--run={run}", f"--snapshot={snapshot}", f"--out={out}"]
    assert main([*argv, *more]) == 0
    for measure in measures.finetuned(f"{task}=a,b,c").measures:  # a study can read it
        assert measure._replace(file=out.name).read(tmp_path) >= 0
    found = json.loads(out.read_text())
    subject = found.pop("subject")
    assert (subject["run"], subject["snapshot"]) == (str(run), str(snapshot))
    assert subject["seen"]["seen_videos"] == 0
    return found


def alone(task, predictions, truth, tmp_path):
    out = tmp_path / "alone.json"
    argv = ["evaluate", f"--task={task}", f"--predictions={predictions}", f"--truth={truth}"]
    assert main([*argv, f"--out={out}"]) == 0
    return json.loads(out.read_text())


def test_the_command_trains_each_task():
    assert tuple(sorted(finetuning.TASKS)) == tasks.TRAINED
    for name, task in finetuning.TASKS.items():
        assert name == task.NAME
        assert task.RECIPES


@pytest.fixture(scope="module")
def answering(untrained_run, snapshot, tmp_path_factory):
    """A run of question answering, on frozen encoders."""
    out = tmp_path_factory.mktemp("runs") / "qa"
    argv = arguments(
        "qa", "shapes", untrained_run, snapshot, out, "task.frozen=true", "task.width=8",
        "task.answers=3", "task.attention_dropout=0.2", "text.tokens=24", "text.positions=24",
    )  # fmt: skip
    assert main(argv) == 0
    return out, argv


def test_question_answering_trains_its_head_and_leaves_frozen_encoders(
    answering, untrained_run, tested, tmp_path
):
    run, before = checkpoint.load(answering[0]), checkpoint.load(untrained_run)
    # "disc" and "ring" are as frequent; the first is in question 2, the other in 5.
    assert run.task is not None
    assert run.task["classes"] == ["two", "disc", "ring"]
    assert run.task["classes_from"] == "snapshots"
    encoders = {name: part for name, part in run.params.items() if name != "head"}
    # Questions are longer than captions: there are positions behind those of the run.
    known = len(before.params["text"]["positions"])
    assert len(encoders["text"]["positions"]) > known
    shortened = encoders["text"] | {"positions": encoders["text"]["positions"][:known]}
    assert same(encoders | {"text": shortened}, before.params)
    assert run.params["head"]["answer"]["bias"].shape == (3,)
    # What was asked of a class that is not one is wrong.
    found = figures("qa", answering[0], tested, tmp_path)
    assert found["questions"] == 24
    assert found["accuracy"] <= 100 * 22 / 24

    truth = [
        {
            "id": 2 * n + k,
            "question": f"{w} is it?",
            "answer": ANSWERS[(n + k) % 3] if n else "never",
        }
        for n in range(12)
        for k, w in enumerate(("what", "who"))
    ]
    (tmp_path / "test_qa.json").write_text(json.dumps(truth))
    more = f"--write-predictions={tmp_path / 'answers.json'}"
    found = figures("qa", answering[0], tested, tmp_path, more)
    scored = alone("qa", tmp_path / "answers.json", tmp_path / "test_qa.json", tmp_path)
    of_run = {"vocabulary": 3, "ceiling": pytest.approx(100 * 22 / 24), "hidden": 0}
    assert scored | of_run == found


def test_a_run_resumes_from_a_checkpoint_bit_for_bit(answering, tmp_path, capsys):
    whole, argv = answering
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "4")
    again = [one.replace(str(whole), str(run)) for one in argv]
    assert main(again) == 0
    assert same(checkpoint.load(run).params, checkpoint.load(whole).params)
    copied = shutil.copytree(whole / "checkpoints" / "4", tmp_path / "4")
    assert checkpoint.load(copied).task == checkpoint.load(whole).task
    # With other settings of the task it is another run.
    capsys.readouterr()
    assert main([*again, "--set=task.dropout=0.25"]) == 1
    assert "task.dropout was 0.1, now 0.25" in capsys.readouterr().err


def test_its_exposure_is_what_its_examples_log(answering, snapshot, tokenizer):
    """The run that it started from has no data.json, so what that one saw is unknown."""
    config = run_folder.read(answering[0])[0]
    objective = finetuning.FineTuning(
        finetuning.TASKS["qa"], finetuning.qa.Config(answers=3), Mixture([Snapshot.open(snapshot)])
    )
    batches = objective.batches(
        tokenizer, config, start_step=0, host=0, hosts=1, on_skip=fail_on_skip
    )
    logged = [
        (step + 1, row, clip_id)
        for step, _, clip_ids in batches
        for row, clip_id in enumerate(clip_ids)
    ]
    found = exposure(answering[0], {f"video{number}" for number in range(12)})
    drawn = [(line["step"], line["row"], line["clip_id"]) for line in listed(found.runs[0])]
    assert drawn == logged and len(drawn) == 16 and not found.runs[0].spliced.any()
    assert "has no data.json" in found.unknown[0] and len(found.runs) == 1


def test_tasks_are_not_chained(answering, snapshot, tmp_path, capsys):
    argv = arguments("action", "shapes", answering[0], snapshot, tmp_path / "run")
    assert main(argv) == 1
    assert "is already fine-tuned for qa: benchmarks share videos" in capsys.readouterr().err


def test_a_pretrained_model_starts_from_a_fine_tuned_one(answering, untrained_run):
    run = checkpoint.load(answering[0])
    plain = checkpoint.load(untrained_run)
    ours = dataclasses.replace(plain.config, text=run.config.text)
    fresh = init_state(ours, one_device()).params
    filled = Start(run=answering[0]).fill(fresh, ours)
    assert same(filled, {name: run.params[name] for name in plain.params})


@pytest.fixture(scope="module")
def retrieving(untrained_run, snapshot, tmp_path_factory):
    """A run of retrieval."""
    out = tmp_path_factory.mktemp("runs") / "retrieval"
    argv = arguments("retrieval", "msrvtt", untrained_run, snapshot, out, "optimizer.name=sgd")
    assert main(argv) == 0
    return out, argv


def test_retrieval_trains_both_encoders(retrieving, untrained_run, snapshot, tested, tmp_path):
    before = figures("retrieval", untrained_run, snapshot, tmp_path)  # zero-shot
    assert (before["captions"], before["videos"]) == (24, 12)
    out = retrieving[0]
    run, earlier = checkpoint.load(out), checkpoint.load(untrained_run)
    assert "head" not in run.params
    for part in ("video", "text", "project_video", "project_text"):
        assert not same(run.params[part], earlier.params[part])
    more = f"--write-predictions={tmp_path / 's.csv'}"
    found = figures("retrieval", out, tested, tmp_path, more)
    assert found["split"] == "24 captions of 12 videos"
    lines = ["video_id,sentence"]
    for clip in sorted(_clips(tested), key=lambda clip: clip.video_id):
        lines += [f"{clip.video_id},{caption}" for caption in clip.captions]
    (tmp_path / "truth.csv").write_text("\n".join(lines))
    assert alone("retrieval", tmp_path / "s.csv", tmp_path / "truth.csv", tmp_path) == found


def test_clips_of_one_span_are_one_video(untrained_run, write_snapshot, tmp_path):
    def of_pairs(clip, number):
        clip.video_id = f"video{number // 2}"
        clip.start_us, clip.end_us = 0, 900_000
        clip.caption = f"Look: a ring {number}"

    size = {"clips": 6, "frames": 4, "height": 18, "width": 24}
    folder = write_snapshot(**size, annotate=of_pairs).folder
    written = tmp_path / "s.csv"
    found = figures("retrieval", untrained_run, folder, tmp_path, f"--write-predictions={written}")
    assert found["split"] == "6 captions of 3 videos"
    lines = [f"{clip.video_id},{clip.caption}" for clip in _clips(folder)]
    truth = tmp_path / "truth.csv"
    truth.write_text("\n".join(["video_id,sentence", *lines]))
    assert alone("retrieval", written, truth, tmp_path) == found


@pytest.mark.slow
def test_two_processes_train_a_task_as_one_does(retrieving, tmp_path):
    """Captions are contrasted with all processes' videos."""
    alone, argv = retrieving
    run = tmp_path / "run"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [*(one.replace(str(alone), str(run)) for one in argv), f"--coordinator={coordinator}"]
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer", *command, "--processes=2", f"--process={number}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for child in children:
            _, errors = child.communicate(timeout=200)
            assert child.returncode == 0, errors[-3000:]
    finally:
        for child in children:
            child.kill()
            child.communicate()

    losses = [[record["loss"] for record in metric_writer.read(folder)] for folder in (run, alone)]
    assert len(losses[1]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        checkpoint.load(run).params,
        checkpoint.load(alone).params,
    )


def _clips(snapshot):
    return read_annotations(Snapshot.open(snapshot))


def test_action_recognition_trains_end_to_end_and_averages_views(
    untrained_run, snapshot, write_snapshot, tmp_path, capsys
):
    out = tmp_path / "run"
    assert main(arguments("action", "ucf101", untrained_run, snapshot, out)) == 0
    run, earlier = checkpoint.load(out), checkpoint.load(untrained_run)
    assert run.task is not None
    assert run.task["classes"] == ["Class0", "Class1", "Class2"]
    assert not same(run.params["video"], earlier.params["video"])
    assert same(run.params["text"], earlier.params["text"])  # the task has no text

    others = partial(annotate, video="unseen")
    longer = write_snapshot("longer", clips=5, frames=8, height=18, width=30, annotate=others)
    more = [f"--write-predictions={tmp_path / 'p.csv'}", "--clips=2", "--crops=3"]
    found = figures("action", out, longer.folder, tmp_path, *more)
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert rows[0] == "video_id,Class0,Class1,Class2"
    assert len(rows) == 1 + 5 * 2 * 3
    lines = [f"Class{number % 3}/unseen{number}.avi" for number in range(5)]
    (tmp_path / "testlist01.txt").write_text("\n".join(lines))
    assert alone("action", tmp_path / "p.csv", tmp_path / "testlist01.txt", tmp_path) == found

    argv = ["evaluate", "--task=action", f"--run={out}", f"--snapshot={longer.folder}"]
    assert main([*argv, "--clips=3"]) == 1
    assert (
        "3 clips of 4 frames need 12: build the snapshot with --frames 12"
        in capsys.readouterr().err
    )
    # Of another task it is no run.
    assert main(["evaluate", "--task=qa", f"--run={out}", f"--snapshot={longer.folder}"]) == 1
    assert "the run is fine-tuned for action: train it" in capsys.readouterr().err


def test_a_run_is_not_tested_on_another_split(answering, write_snapshot, tmp_path, capsys):
    def annotate_some(clip, number):
        annotate(clip, number, video="unseen" if number else "video")

    def evaluate(snapshot, run=answering[0]):
        return main(["evaluate", "--task=qa", f"--run={run}", f"--snapshot={snapshot.folder}"])

    of = {"clips": 3, "frames": 4, "height": 18, "width": 24, "annotate": annotate_some}
    split = write_snapshot("split", **of)
    assert evaluate(split) == 1
    message = "the run was trained on videos with the ids of 1 of the 3 videos of"
    said = capsys.readouterr().err
    assert message in said
    assert "such as video0 (1 by id alone: the files differ" in said
    assert "evaluate the run on its own test split" in said
    assert evaluate(split, shutil.copytree(answering[0] / "checkpoints" / "4", tmp_path / "4")) == 1
    assert message in capsys.readouterr().err
    # Of another data set, ids say nothing; but which is said.
    split.edit_manifest(dataset="other")
    assert evaluate(split) == 0
    assert "was trained on test, but" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "preset", "settings", "message"),
    [
        ("qa", "msrvtt", [], "qa has no preset 'msrvtt': give one of msrvtt-qa, msvd-qa, shapes"),
        ("qa", "shapes", ["task.size=8"], "has no field 'size'"),
        (
            "qa",
            "shapes",
            ["input.on_corrupt=skip"],
            "input.on_corrupt=skip, input.weights, input.where and input.weights_column apply to",
        ),
        ("qa", "shapes", ["input.where=score > 0"], "weights_column apply to pre-training"),
        ("qa", "shapes", [], "the snapshot's clips have no question"),
        ("action", "shapes", [], "has 0 labels: action recognition takes"),
    ],
)
def test_contradictory_inputs_are_refused(
    untrained_run, write_snapshot, tmp_path, capsys, task, preset, settings, message
):
    plain = write_snapshot(clips=4, frames=4, height=18, width=18).folder
    argv = arguments(task, preset, untrained_run, plain, tmp_path / "run", *settings)
    assert main(argv) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_random_encoder_has_the_runs_sizes_and_vocabulary_alone(
    untrained_run, snapshot, tmp_path, monkeypatch
):
    starts = []
    monkeypatch.setattr(
        finetuning.loop, "train", lambda *arguments: starts.append(arguments) or True
    )
    argv = arguments("action", "shapes", untrained_run, snapshot, tmp_path / "run")
    assert main([*argv, "--random-encoder", f"--eval-snapshot={snapshot}", "--profile=2:3"]) == 0
    ((_, config, _, vocabulary, start, monitoring),) = starts
    assert monitoring == finetuning.loop.Monitoring(str(snapshot), (2, 3))
    assert start == Start()
    loaded = checkpoint.load(untrained_run)
    assert vocabulary.difference(loaded.tokenizer) is None
    assert config.video == loaded.config.video


def test_views_are_refused_where_there_are_none(untrained_run, snapshot):
    run = checkpoint.load(untrained_run)
    for name in ("retrieval", "qa"):
        with pytest.raises(TaskError, match="one clip and one crop"):
            task = finetuning.TASKS[name]
            task.predict(run, Snapshot.open(snapshot), lambda *_: None, Views(clips=2))


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("retrieval", finetuning.retrieval.Config()),
        ("qa", finetuning.qa.Config(answers=3, width=8)),
        ("action", finetuning.action.Config(frozen=True)),
    ],
)
def test_the_compiler_counts_as_many_flops(snapshot, tokenizer, task, settings):
    """Use sizes at which the encoders' matrix products dominate."""
    config = override(
        PRESETS["tiny"],
        [
            *("batch=8", "optimizer.name=sgd", "cut_and_paste.enabled=false", "max_steps=1"),
            *("video.frames=4", "video.resolution=48", "input.short_side=48"),
            *("video.width=256", "video.mlp_width=1024", "video.grouping_after=1,3"),
            *("text.width=256", "text.mlp_width=1024", "text.tokens=64", "text.positions=64"),
            *("text.vocabulary=120", "joint_width=16"),
        ],
    )
    clips, mesh = Mixture([Snapshot.open(snapshot)]), one_device()
    objective = finetuning.FineTuning(finetuning.TASKS[task], settings, clips)
    batches = objective.batches(
        tokenizer, config, start_step=0, host=0, hosts=1, on_skip=fail_on_skip
    )
    _, batch, _ = next(batches)
    batches.close()
    step = jax.jit(objective.train_step, static_argnums=(2, 3, 4))
    lowered = step.lower(objective.state_shapes(config, mesh), batch, config, 1, mesh)
    counted = (lowered.cost_analysis() or {})["flops"]
    assert 1.0 <= counted / objective.step_flops(config) < 1.04


def test_numbers_of_steps_follow_from_examples(snapshot):
    clips = Mixture([Snapshot.open(snapshot)])
    task = finetuning.TASKS["qa"]
    objective = finetuning.FineTuning(task, finetuning.qa.Config(answers=3), clips)
    assert objective.visits == 22  # questions, not videos, and those with an answer to learn
    assert finetuning.FineTuning(task, finetuning.qa.Config(), clips).visits == 24
    named = finetuning.FineTuning(task, finetuning.qa.Config(), clips, ["ring", "unseen"])
    assert named.task is not None
    assert named.task["classes"] == ["ring", "unseen"]
    assert named.visits == sum(
        question.answer == "ring" for clip in _clips(snapshot) for question in clip.questions
    )
