"""User errors, internal errors and their exit codes."""

import importlib
import json
import pkgutil

import pytest
import safetensors.numpy

import trainer
from trainer.cli import commands, main
from trainer.data import folder
from trainer.errors import ExitCode, UserError
from trainer.runs import checkpoint_errors
from trainer.tasks.localisation import saved
from trainer.tasks.localisation.training import LocalisationError

# Handled where they are raised.
INTERNAL = {"GpuError", "LayoutError", "_UnknownError"}


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


def raised_in(module, error):
    """Raise an exception in a function of a module."""
    names = {"__name__": module, "error": error}
    exec("def fail():\n    raise error", names)
    names["fail"]()


@pytest.mark.parametrize("error", [TypeError, KeyError, AttributeError])
def test_a_fault_in_reading_a_checkpoint_is_no_damage(tmp_path, error):
    for module, verified, wanted in (
        ("orbax.checkpoint", False, checkpoint_errors.UncheckedError),
        ("orbax.checkpoint", True, error),
        ("trainer.runs.checkpoint", False, error),
        ("trainer.runs.checkpoint", True, error),
    ):
        with (
            pytest.raises(wanted),
            checkpoint_errors.reading(tmp_path, verified),
        ):
            raised_in(module, error("x"))


def test_a_fault_in_reading_a_bucket_is_none_of_its_answers():
    with pytest.raises(TypeError), folder.as_os_errors("gs://a/b"):
        raised_in("trainer.data.folder", TypeError("x"))
    with pytest.raises(OSError, match="gs://a/b"), folder.as_os_errors("gs://a/b"):
        raised_in("gcsfs.core", TypeError("x"))


def test_a_fault_in_reading_a_localisation_model_is_no_damage(tmp_path, monkeypatch):
    def faulty(state):
        raise TypeError("a fault")

    monkeypatch.setattr("trainer.tasks.localisation.pytorch_layout.params", faulty)
    settings = {"config": {}, "classes": [], "epoch": 1}
    (tmp_path / "localisation.json").write_text(json.dumps(settings))
    safetensors.numpy.save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(TypeError, match="a fault"):
        saved.load(tmp_path)
    (tmp_path / "localisation.json").write_text(json.dumps({"classes": [], "epoch": 1}))
    with pytest.raises(LocalisationError, match="has no config"):
        saved.load(tmp_path)
