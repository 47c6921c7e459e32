import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from trainer.ablation import measures, run, summary, variants
from trainer.cli.main import main
from trainer.cli.tasks import TRAINED
from trainer.configs import PRESETS
from trainer.configs.overrides import override

SETTINGS = (
    "video.frames=8",
    "video.resolution=24",
    "input.short_side=24",
    "cut_and_paste.from_step=0",
    "log_every=1",
    "epochs=5000",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_interrupted_ablation_resumes_and_is_evaluated(write_snapshot, toy, tmp_path, capsys):
    snapshot = write_snapshot(clips=16, frames=8, height=24, width=24).folder
    out = tmp_path / "study"
    settings = [f"--set={setting}" for setting in SETTINGS if setting != "video.frames=8"]
    argv = ["study", "frames", "--preset=tiny", *toy, *settings, "--frames=8", "--seeds=1"]
    argv += [f"--snapshot={snapshot}", f"--test={snapshot}", "--max-steps=300", f"--out={out}"]
    assert main(argv) == 1  # before anything is trained
    assert "the run was trained on 6 of the 6 videos of" in capsys.readouterr().err
    assert not (out / "8-frames-seed0").exists()
    argv.append("--allow-seen")
    child = subprocess.Popen(
        [sys.executable, "-m", "trainer", *argv], stderr=subprocess.PIPE, text=True
    )
    log = out / "8-frames-seed0" / "run" / "metrics.jsonl"
    while not (log.exists() and log.read_text()):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate()
    assert child.returncode == os.EX_TEMPFAIL, said
    assert "study: stopped in 8-frames-seed0/pretrain; the same command resumes it" in said
    steps_before = len(log.read_text().splitlines())
    assert 0 < steps_before < 300

    assert main(argv) == 0
    logged = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert logged == list(range(1, 301))  # none twice: it went on
    evaluated = json.loads((out / "8-frames-seed0" / "evaluation.json").read_text())
    figures = json.loads((out / "figures.json").read_text())["8 frames"]
    assert figures["t2v R@1"] == [evaluated["zero_shot"]["t2v"]["R@1"]]
    assert figures["windows"] == [evaluated["temporal"]["window_accuracy"]]
    assert (out / "table.md").read_text() in capsys.readouterr().out + "\n"
    with Image.open(out / "study.png") as picture:
        assert picture.width > 300

    # Done steps are not done again, and a study of another kind does not mix with them.
    changed = log.stat().st_mtime_ns
    assert main(argv) == 0
    assert log.stat().st_mtime_ns == changed
    capsys.readouterr()
    argv[argv.index("--max-steps=300")] = "--max-steps=2"
    assert main(argv) == 1
    assert "8-frames-seed0/pretrain was done with" in capsys.readouterr().err


def helps(name):
    """An ablation of one step without measurements."""
    steps = [measures.Step("evaluate", ["evaluate", "--help"])]
    measurement = measures.Measurement(lambda folder, seed: iter(steps), [], name)
    return run.Study([variants.Variant("a", (), None)], [0], (), [measurement], allow_seen=True)


STEP_OF_A_STUDY = "import sys; from trainer.ablation import run; run._svilm_train(sys.argv[1:])"


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels announce no parent's death")
def test_a_step_saves_and_ends_with_a_killed_study(write_snapshot, toy, tmp_path):
    snapshot = write_snapshot(clips=16, frames=8, height=24, width=24).folder
    settings = [f"--set={setting}" for setting in SETTINGS]
    argv = ["pretrain", "--preset=tiny", *toy, *settings, f"--snapshot={snapshot}"]
    argv.append("--max-steps=9000")
    with open(tmp_path / "log.txt", "w") as messages:
        study = subprocess.Popen(
            [sys.executable, "-c", STEP_OF_A_STUDY, *argv, f"--out={tmp_path / 'run'}"],
            stderr=messages,
        )
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and log.read_text()):
        assert study.poll() is None
        time.sleep(0.02)
    (step,) = psutil.Process(study.pid).children()
    study.kill()
    study.wait()
    step.wait(timeout=60)
    saved = max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert 0 < saved < 9000
    assert len(log.read_text().splitlines()) == saved


@pytest.mark.parametrize("names", [("v1.1", "v1-1"), ("α", "b"), ("a b", "a+b")])
def test_variants_do_not_share_a_folder(names, tmp_path):
    study = run.Study([variants.Variant(name, ()) for name in names], [0], (), [])
    with pytest.raises(variants.StudyError, match=re.escape(repr(names[0]))):
        run.run(study, tmp_path)
    assert not (tmp_path / "study.json").exists()


def test_a_changed_snapshot_is_refused(write_snapshot, tmp_path):
    first, second = (write_snapshot(name, clips=4 + len(name)).folder for name in ("a", "bc"))
    study = run.Study([variants.Variant("a", ("--snapshot", str(first)))], [0], (), [])
    done = {step.name: step.arguments for step in run.steps(study, tmp_path)}
    (tmp_path / "study.json").write_text(json.dumps(done))
    for _ in range(2):
        assert run.run(study, tmp_path) is None
        assert [*run.read_snapshots(tmp_path)] == [str(first)]
    shutil.rmtree(first)
    second.rename(first)
    with pytest.raises(variants.StudyError, match=f"{first} is another snapshot"):
        run.run(study, tmp_path)


@pytest.mark.parametrize("before", [[], ["--allow-seen"]])
def test_whether_seen_videos_are_allowed_is_no_part_of_a_study(before, tmp_path, capfd):
    study, record = helps("nowhere"), tmp_path / "study.json"
    planned = {step.name: step.arguments for step in run.steps(study, tmp_path)}
    measured = planned.pop("a-seed0/evaluate")
    record.write_text(json.dumps(planned))
    assert run.run(study, tmp_path) is None  # in a process of its own
    assert "svilm-train evaluate --help --allow-seen\n" in capfd.readouterr().out
    assert json.loads(record.read_text())["a-seed0/evaluate"] == measured == ["evaluate", "--help"]

    # Also of a study that an earlier release began.
    record.write_text(json.dumps({**planned, "a-seed0/evaluate": [*measured, *before]}))
    for allow_seen in (False, True):
        assert run.run(study._replace(allow_seen=allow_seen), tmp_path) is None
    record.write_text(json.dumps({**planned, "a-seed0/evaluate": [*measured, "--batch=8"]}))
    with pytest.raises(variants.StudyError, match="a-seed0/evaluate was done with"):
        run.run(study, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["losses"], "study losses requires --snapshot"),
        (["frames", "--snapshot=a"], "study frames requires --frames"),
        (["losses", "--snapshot=a", "--frames=8"], "study losses does not use --frames"),
        (["losses", "--snapshot=a", "--test=a", "--set=seed=5"], "--set seed=5: the study sets"),
        (
            ["losses", "--snapshot=a", "--test=a", "--set=loss.temporal_weight=0"],
            "--set loss.temporal_weight=0: the study sets",
        ),
        (["losses", "--snapshot=a"], "give --test, --finetune or --localise"),
        (["losses", "--snapshot=a", "--task=pointing"], "--task requires --test"),
        (["losses", "--snapshot=a", "--truth=a", "--finetune=a"], "--truth requires --test"),
        (["frames", "--snapshot=a", "--frames=8", "--frames=8"], "--frames has a duplicate"),
        (
            ["losses", "--snapshot=a", "--test=a", "--task=pointing"],
            "--task pointing requires --truth",
        ),
        (
            ["losses", "--snapshot=a", *["--finetune=qa=shapes,a,b/c"] * 2],
            "two options report qa-shapes-c accuracy",
        ),
    ],
)
def test_wrong_usage(options, message, tmp_path, capsys):
    assert main(["study", *options, "--preset=tiny", f"--out={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "measurement",
    [
        measures.zero_shot("nowhere", "nothing.jsonl", []),
        measures.finetuned("qa=shapes,nowhere,nowhere"),
        measures.localised("shapes,nowhere,nowhere,nothing.json"),
    ],
)
def test_a_study_calls_commands_as_they_want_it(measurement, tmp_path, capsys):
    for step in measurement.steps(tmp_path, 0):
        assert main(step.arguments) == 1  # wrong usage is 2
        assert "nothing.json" in (line := capsys.readouterr().err) or str(tmp_path) in line


@pytest.mark.parametrize("asked", ["qa", "qa=a,b", "qa=a,b,", "nosuch=a,b,c"])
def test_tasks_of_another_form(asked):
    with pytest.raises(variants.StudyError, match="must be TASK=PRESET,TRAIN,TEST"):
        measures.finetuned(asked)


def test_every_task_that_is_trained_can_be_studied():
    for task in TRAINED:
        assert measures.finetuned(f"{task}=shapes,a,b").measures


def test_localisation_of_another_form():
    with pytest.raises(variants.StudyError, match="must be PRESET,TRAIN,TEST,TRUTH"):
        measures.localised("shapes,a,b")


def test_the_variants_of_table_6_switch_losses_off():
    weights = {}
    for variant in variants.losses(["a"]):
        settings = [word for word in variant.options if "=" in word]
        config = override(PRESETS["tiny"], settings)
        weights[variant.name] = (
            config.loss.contrast_weight,
            config.loss.grounding_weight,
            config.loss.temporal_weight,
            config.cut_and_paste.enabled,
        )
    assert weights == {
        "contrast": (1, 0, 0, False),
        "contrast, pasted": (1, 0, 0, True),
        "contrast + grounding": (1, 1, 0, False),
        "contrast + grounding, pasted": (1, 1, 0, True),
        "contrast + temporal": (1, 0, 1, True),
        "all": (1, 1, 1, True),
    }


@pytest.mark.parametrize("mixture", ["a", "=a", "a=", "a=b,,c"])
def test_mixtures_of_another_form(mixture):
    with pytest.raises(variants.StudyError, match="must be NAME=SNAPSHOT"):
        variants.data([mixture])


def test_two_mixtures_of_one_name():
    with pytest.raises(variants.StudyError, match="two mixtures named a"):
        variants.data(["a=b", "a=c"])


def test_differences_are_within_a_seed():
    values = {"base": {"x": [1.0, 5.0, 9.0]}, "more": {"x": [2.0, 6.5, 9.9]}}
    rows = summary.table(values, {"more": "base"}, "t").splitlines()
    mean = statistics.mean([1.0, 1.5, 0.9])
    assert rows[-1] == f"| more − base | {mean:.3f} ± {statistics.stdev([1.0, 1.5, 0.9]):.3f} |"


def test_a_figure_that_was_not_measured(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"grounding": null}')
    (pointing,) = measures.ZERO_SHOT["pointing"]
    with pytest.raises(
        variants.StudyError, match=r"has no finite number grounding\.pointing_accuracy"
    ):
        pointing.read(tmp_path)
