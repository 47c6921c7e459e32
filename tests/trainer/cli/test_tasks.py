import json
import shutil

import pytest

from trainer.cli import commands, tasks
from trainer.cli.main import main
from trainer.evaluation import scoring


def test_the_command_knows_each_task():
    assert tuple(sorted(scoring.SCORERS)) == tasks.TASKS


def test_a_file_of_predictions_is_scored_alone(tmp_path, capsys):
    truth, given = tmp_path / "test_qa.json", tmp_path / "answers.json"
    truth.write_text(json.dumps([{"id": 3, "question": "who is it?", "answer": "man"}]))
    given.write_text(json.dumps([{"question_id": 3, "answer": "man"}]))
    argv = ["evaluate", "--task=qa", f"--predictions={given}", f"--truth={truth}"]
    assert main([*argv, f"--out={tmp_path / 'figures.json'}"]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["accuracy"] == 100
    assert "who (1)" in capsys.readouterr().out
    given.write_text("[{}]")
    assert main(argv) == 1
    assert "answers.json, entry 0: 'question_id' or 'id' is missing" in capsys.readouterr().err


METRICS = ("subject", "step", "zero_shot", "controls", "temporal", "grounding")


@pytest.mark.parametrize(
    "argv",
    [
        ["evaluate"],
        ["evaluate", "--task=retrieval"],
        ["search", "a red ring"],
        ["report", "--metrics={out}/metrics.json", "--out={out}/page.html"],
        ["figures", "--out={out}/figures"],
    ],
)
def test_a_run_of_another_task_has_no_joint_space(
    argv, untrained_run, write_snapshot, tmp_path, capsys
):
    run, snapshot = tmp_path / "run", write_snapshot(clips=4, height=18, width=24).folder
    shutil.copytree(untrained_run, run)
    (run / "task.json").write_text(json.dumps({"name": "action", "config": {}, "classes": ["a"]}))
    (tmp_path / "metrics.json").write_text(json.dumps({name: {} for name in METRICS}))
    argv = [word.format(out=tmp_path) for word in argv]
    assert main([*argv, f"--run={run}", f"--snapshot={snapshot}"]) == 1
    assert "fine-tuned for action, which does not train the joint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ([], 2, "--run and --snapshot are required without --task"),
        (["--task=qa"], 2, "requires either --run and --snapshot, or --predictions and --truth"),
        (["--task=qa", "--predictions", "a", "b", "--truth=c"], 1, "one file of predictions"),
    ],
)
def test_misuse_is_reported(argv, status, message, capsys):
    assert main(["evaluate", *argv]) == status
    assert message in capsys.readouterr().err


RUN, FILES = ["--run=r", "--snapshot=s"], ["--predictions=p", "--truth=t"]
FINETUNE = ["finetune", "--preset=shapes", *RUN, "--out=o"]
TEST = ["localise", "--truth=t", "--out=o", "--test-features=f"]
TRAIN = ["localise", "--truth=t", "--out=o", "--features=f"]
STUDY = ["study", "losses", "--preset=tiny", "--snapshot=s", "--test=t", "--out=o"]


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        *((["evaluate", *RUN, *given], given[0]) for given in (
            ["--predictions=p"], ["--write-predictions=p"], ["--boxes=b"], ["--clips=1"],
            ["--crops=2"],
        )),
        *((["evaluate", "--task=action", *FILES, *given], given[0]) for given in (
            ["--write-predictions=p"], ["--boxes=b"], ["--clips=1"], ["--crops=2"],
            ["--control=c"], ["--allow-seen"],
        )),
        (["evaluate", "--task=action", *RUN, "--control=c"], "--control"),
        (["evaluate", "--task=action", *RUN, "--boxes=c"], "--boxes"),
        (["evaluate", "--task=qa", *RUN, "--clips=2"], "--clips"),
        *(([*FINETUNE, f"--task={task}", "--answers=a"], "--answers") for task in (
            "retrieval", "action", "spatiotemporal",
        )),
        ([*FINETUNE, "--task=qa", "--allow-seen"], "--allow-seen"),
        (["pretrain", "--preset=tiny", "--snapshot=s", "--out=o", "--allow-seen"], "--allow-seen"),
        (["plan", "--preset=tiny", "--headroom=0"], "--headroom"),
        ([*TEST, "--preset=activitynet"], "--preset"),
        ([*TEST, "--set=epochs=1"], "--set"),
        ([*TRAIN, "--class-scores=c"], "--class-scores"),
        ([*TRAIN, "--allow-seen"], "--allow-seen"),
        ([*STUDY, "--truth=t", "--task=retrieval"], "--truth"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_refused_by_name(argv, option, capsys):
    assert main(argv) == 2
    assert f"{option.partition('=')[0]} applies only to " in capsys.readouterr().err


def test_two_settings_of_the_classes_are_refused(capsys):
    argv = [*FINETUNE, "--task=qa", "--answers=a", "--set=task.answers=9"]
    assert main(argv) == 2
    assert "--answers and --set task.answers both set the classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        ([*FINETUNE, "--task=qa", "--max-steps=3"], "max_steps"),
        (["pretrain", "--preset=tiny", "--snapshot=s", "--out=o", "--max-steps=3"], "max_steps"),
        (["plan", "--preset=tiny", "--epochs=3"], "epochs"),
    ],
)
def test_a_field_is_set_by_one_option(argv, option, capsys):
    assert main([*argv, f"--set={option}=4"]) == 2
    assert f"and --set {option} both set {option}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [("R@1", 812.5), ("R@5", -1), ("MedR", 0.5), ("window_accuracy", -3), ("blank_frames", 100.5)],
)
def test_figures_that_cannot_be_true_are_refused_by_name(name, value, tmp_path):
    recalls = {"R@1": 50.0, "R@5": 100.0, "MedR": 1.0}
    figures = {
        "subject": {},
        "step": 3,
        "zero_shot": {"n": 8, "t2v": recalls | {"optimistic": dict(recalls)}},
        "temporal": {"window_accuracy": 1.0},
        "controls": {"blank_frames": 0.0},
        "grounding": {"objects": 12, "chance": 0.1},
    }
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(figures))
    commands.read_metrics(str(path))
    places = (figures["zero_shot"]["t2v"]["optimistic"], figures["temporal"], figures["controls"])
    next(one for one in places if name in one)[name] = value
    path.write_text(json.dumps(figures))
    with pytest.raises(commands.OutputError, match=f"{name} is {value}, outside "):
        commands.read_metrics(str(path))
