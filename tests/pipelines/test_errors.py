"""User errors, internal errors and their exit codes."""

import importlib
import pkgutil

import pytest

import pipelines
from pipelines.cli import main
from pipelines.errors import ExitCode, UserError
from tests.pipelines.conftest import clip_of, write_small_snapshot

# These errors are always caught: by a decoder, or as the reject of a row.
INTERNAL = {
    *("InternalError", "IrregularError", "LostRowsError", "MissingError", "PictureError"),
    *("RefusedError", "RowError", "SeveralValuesError", "StreamError", "UnreadableError"),
    *("UnconfinedError", "_UnreadableError"),
}


def test_every_error_derives_from_user_error_or_is_handled():
    found = {}
    for module in pkgutil.walk_packages(pipelines.__path__, "pipelines."):
        if module.name.endswith("__main__"):
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            ours = isinstance(kind, type) and kind.__module__.startswith("pipelines.")
            if ours and issubclass(kind, Exception):
                found[name] = kind
    others = {name for name, kind in found.items() if not issubclass(kind, UserError)}
    assert len(found) > 20 and others == INTERNAL


@pytest.mark.parametrize("error", [TypeError("no int"), KeyError("x"), IndexError("y")])
def test_a_fault_is_an_internal_error_with_a_traceback_file(error, monkeypatch, capsys, tmp_path):
    def faulty(*_, **__):
        raise error

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("pipelines.snapshots.verify.faults", faulty)
    write_small_snapshot(tmp_path / "snapshot", [clip_of("a")])
    assert main.main(["verify", str(tmp_path / "snapshot")]) == ExitCode.INTERNAL_ERROR == 70
    line = capsys.readouterr().err.splitlines()[-1]
    (log,) = tmp_path.glob("svilm-pipelines-*.log")
    assert line.startswith(f"svilm-pipelines: internal error: {type(error).__name__}: ")
    assert line.endswith(str(log))
    assert "in faulty\n" in log.read_text()
