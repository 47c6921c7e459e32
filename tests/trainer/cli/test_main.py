import argparse
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from trainer.cli.main import _parser, main
from trainer.runs import checkpoint
from trainer.training import metric_writer

PARITY = pathlib.Path(__file__).parents[2] / "data" / "parity"


@pytest.fixture(scope="module")
def pretrain(toy):
    """A command that trains three steps on clips of 4 frames."""
    sizes = ("video.frames=4", "video.resolution=16", "video.patch=8", "input.short_side=16")
    settings = [f"--set={size}" for size in sizes]
    return ["pretrain", "--preset=tiny", *settings, *toy, "--max-steps=3"]


def fails(capsys, argv, status=1):
    """Return the error line of a command that fails."""
    assert main([str(argument) for argument in argv]) == status
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("svilm-train: error: ")
    assert captured.out == ""
    return line


def test_pretrain_makes_a_run_and_continues_it(pretrain, write_snapshot, tmp_path, capsys):
    snapshot = write_snapshot(clips=16, frames=4, height=16, width=16).folder
    argv = [*pretrain, f"--snapshot={snapshot}", f"--out={tmp_path / 'run'}"]
    assert main(argv) == 0
    assert "step 3/3" in capsys.readouterr().err
    assert checkpoint.load(tmp_path / "run").step == 3
    assert main(argv) == 0
    assert capsys.readouterr().out.endswith("is complete\n")

    line = fails(capsys, [*argv, "--set=joint_width=8", "--set=seed=1"])
    assert "joint_width was 16, now 8; seed was 0, now 1" in line


@pytest.mark.slow
def test_ctrl_c_saves_and_has_a_status_of_its_own(pretrain, write_snapshot, tmp_path, capfd):
    snapshot = write_snapshot(clips=16, frames=4, height=16, width=16).folder
    run = tmp_path / "run"

    def send():
        while not metric_writer.read(run):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    settings = ["--max-steps=5000", "--set=epochs=5000", "--set=log_every=1"]
    command = [word for word in pretrain if not word.startswith("--max-steps")]
    assert main([*command, *settings, f"--snapshot={snapshot}", f"--out={run}"]) == 75
    sender.join()
    said = capfd.readouterr().err
    assert "saving a checkpoint; signal again to stop without" in said
    assert f"pretrain: saved; the same command resumes {run}" in said
    assert checkpoint.load(run).step == max(record["step"] for record in metric_writer.read(run))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no glibc")
def test_a_program_starts_again_once_unless_malloc_was_tuned_by_its_user():
    program = """
import os
from trainer.cli.main import start_with_malloc_tuned
print("here", os.environ.get("GLIBC_TUNABLES"), flush=True)
start_with_malloc_tuned()
"""
    plain = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}

    def told(environment):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.splitlines()

    first, second = told(plain)
    assert first == "here None" and "glibc.malloc.hugetlb=1:" in second
    for kept in ({"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}, {"SVILM_KEEP_ALLOCATOR": "1"}):
        assert told(plain | kept) == [f"here {kept.get('GLIBC_TUNABLES')}"]


@pytest.mark.parametrize(
    ("command", "trains"),
    [
        (["pretrain", "--preset=tiny", "--snapshot=a", "--out=b"], True),
        (["finetune", "--task=qa", "--preset=shapes", "--run=r", "--snapshot=a", "--out=b"], True),
        (["localise", "--truth=a", "--out=b"], True),
        (["evaluate", "--run=r", "--snapshot=a"], False),
        (["study", "losses", "--preset=tiny", "--out=b"], False),  # its children train
        (["plan", "--preset=tiny", "--topology=cpu:1"], False),
    ],
)
def test_only_commands_that_train_tune_malloc(command, trains):
    assert _parser().parse_args(command).trains is trains


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames=3"], "unrecognized arguments: --frames=3 (see `svilm-train --help`)"),
        (["--set=batch"], "--set: setting 'batch' is not of the form field=value"),
        (["--set=video.widht=1"], "--set: video has no field 'widht'; it has frames, "),
        (["--max-steps=0"], "argument --max-steps: '0' is not an integer ≥ 1"),
        (["--processes=2", "--process=0"], "require --coordinator HOST:PORT"),
        (["--coordinator=auto", "--process=0"], "leave them out"),
        (["--coordinator=a:1", "--processes=2"], "requires --processes and --process"),
        (["--coordinator=a:1", "--processes=2", "--process=2"], "give 0 … 1"),
        (
            [
                f"--video-weights={PARITY / 'vivit'}",
                *("--set=video.layers=2", "--set=video.grouping_after=2"),
            ],
            "--set: video.patch=8 would be ",
        ),
        (["--profile=5:3"], "argument --profile: '5:3' is not N:M with 1 ≤ N ≤ M, such as 10:12"),
        (["--preset=huge"], "argument --preset: invalid choice: 'huge'"),
    ],
)
def test_wrong_usage(pretrain, tmp_path, capsys, arguments, message):
    argv = [*pretrain, "--snapshot=nowhere", f"--out={tmp_path / 'run'}", *arguments]
    assert message in fails(capsys, argv, status=2)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ["plan", "--preset=tiny", "--preset=paper"],
            "--preset is given twice ('tiny' and 'paper')",
        ),
        (["search", "a ring", "--run=a", "--run", "b"], "--run is given twice ('a' and 'b')"),
        (["localise", "--out=a", "--out=a"], "--out is given twice ('a' and 'a'): give it once"),
    ],
)
def test_a_repeated_option_of_one_value_is_refused(capsys, argv, told):
    assert told in fails(capsys, argv, status=2)


def test_values_of_repeated_options_add_up():
    words = ["--set=a=1", "--set=a=2", "--snapshot=s", "--snapshot=t"]
    arguments = _parser().parse_args(["pretrain", "--preset=tiny", "--out=o", *words])
    assert (arguments.settings, arguments.snapshot) == (["a=1", "a=2"], ["s", "t"])
    words = ["--truth", "a", "b", "--truth=c", "--predictions=d", "--predictions", "e"]
    arguments = _parser().parse_args(["evaluate", "--task=action", *words])
    assert (arguments.truth, arguments.predictions) == (["a", "b", "c"], ["d", "e"])


def test_no_option_of_several_values_keeps_the_last_ones_alone():
    (commands,) = (
        action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    several = [
        action
        for command in commands.choices.values()
        for action in command._actions
        if action.option_strings and action.nargs in ("+", "*")
    ]
    assert several
    assert all(isinstance(action, argparse._ExtendAction) for action in several)


@pytest.mark.parametrize("argv", [["search", " "], ["figures", "--noun=", "--out=figures"]])
def test_nothing_to_look_for(capsys, argv):
    line = fails(capsys, [*argv, "--run=run", "--snapshot=clips"], status=2)
    assert "is blank: give words such as 'a red ring'" in line


def test_weights_and_biases_is_not_installed(pretrain, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    argv = [*pretrain, "--snapshot=nowhere", f"--out={tmp_path / 'run'}", "--wandb=project"]
    assert "--wandb requires Weights & Biases: pip install '.[wandb]'" in fails(capsys, argv)


def test_no_command(capsys):
    assert "required: COMMAND" in fails(capsys, [], status=2)


def test_no_snapshot(pretrain, tmp_path, capsys):
    line = fails(
        capsys, [*pretrain, f"--snapshot={tmp_path / 'none'}", f"--out={tmp_path / 'run'}"]
    )
    assert "does not exist" in line
    (tmp_path / "half").mkdir()
    line = fails(
        capsys, [*pretrain, f"--snapshot={tmp_path / 'half'}", f"--out={tmp_path / 'run'}"]
    )
    assert "incomplete" in line


def test_a_snapshot_of_a_newer_major_version(pretrain, write_snapshot, tmp_path, capsys):
    written = write_snapshot(clips=16, frames=4, height=16, width=16)
    written.edit_manifest(schemaVersion="2.0")
    line = fails(capsys, [*pretrain, f"--snapshot={written.folder}", f"--out={tmp_path / 'run'}"])
    assert "schema version 2.0, but this release reads 1.x" in line


def test_no_vocabulary(pretrain, write_snapshot, tmp_path, capsys):
    snapshot = write_snapshot(clips=16, frames=4, height=16, width=16).folder
    argv = [
        *pretrain,
        f"--snapshot={snapshot}",
        f"--out={tmp_path / 'run'}",
        "--vocabulary=none.txt",
    ]
    assert "vocabulary none.txt cannot be read: No such file or directory" in fails(capsys, argv)


def test_an_output_that_cannot_be_written(pretrain, write_snapshot, tmp_path, capsys):
    snapshot = write_snapshot(clips=16, frames=4, height=16, width=16).folder
    (tmp_path / "file").touch()
    argv = [*pretrain, f"--snapshot={snapshot}", f"--out={tmp_path / 'file' / 'run'}"]
    assert "Not a directory: check its permissions" in fails(capsys, argv)
    argv = [*pretrain, f"--snapshot={snapshot}", f"--out={tmp_path / 'file'}"]
    assert fails(capsys, argv).count("check its permissions") == 1


def test_examples_in_help_are_broken_where_they_are_written(capsys):
    commands = (
        "pretrain finetune evaluate index search report figures export embed plan localise study"
    )
    for command in commands.split():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 110 for line in shown if line.startswith("  svilm-")), command


def test_help_needs_no_framework():
    command = "import sys; from trainer.cli.main import main; main(['pretrain', '--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", command], capture_output=True, text=True
    )
    assert "--snapshot DIR" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "trainer.cli.main" in imported
    assert not imported & {"jax", "tensorflow", "numpy", "orbax"}
