"""User errors, internal errors and their exit codes."""

import importlib
import pkgutil

import pytest

import trainer
from trainer.cli import commands, main
from trainer.errors import ExitCode, UserError

# Handled where they are raised.
INTERNAL = {"GpuError", "LayoutError"}


def test_every_error_of_the_stage_is_a_users_or_handled():
    found = {}
    for module in pkgutil.walk_packages(trainer.__path__, "trainer."):
        if module.name.endswith("__main__"):
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            ours = isinstance(kind, type) and kind.__module__.startswith("trainer.")
            if ours and issubclass(kind, Exception):
                found[name] = kind
    others = {name for name, kind in found.items() if not issubclass(kind, UserError)}
    assert len(found) > 20 and others == INTERNAL


@pytest.mark.parametrize("error", [TypeError("no float"), KeyError("x"), AttributeError("y")])
def test_a_fault_is_an_internal_error_with_its_traceback_in_a_file(
    error, monkeypatch, capsys, tmp_path
):
    def faulty(*_, **__):
        raise error

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("trainer.inference.search.search", faulty)
    monkeypatch.setattr("trainer.runs.checkpoint.load", faulty)
    kept = tmp_path / "run" / "checkpoints" / "7"
    kept.mkdir(parents=True)
    options = [f"--run={tmp_path / 'run'}", f"--snapshot={tmp_path}", "a dog"]
    assert main.main(["search", *options]) == ExitCode.INTERNAL_ERROR == 70
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.glob("svilm-train-*.log")
    assert line.startswith(f"svilm-train: internal error: {type(error).__name__}: ")
    assert line.endswith(str(log))
    assert "in faulty\n" in log.read_text() and type(error).__name__ in log.read_text()
    assert kept.exists()


def test_a_users_error_is_one_line(capsys):
    assert main.main(["pretrain", "--preset=tiny", "--set=batch=x", "--snapshot=s", "--out=o"]) == 2
    assert capsys.readouterr().err == (
        "svilm-train: error: --set: batch takes an integer, got 'x'\n"
    )
    assert issubclass(commands.OutputError, UserError)
