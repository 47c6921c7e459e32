"""ONNX programs need packages of their own; `tests/interop/test_onnx.py` has them."""

from trainer.cli.main import main
from trainer.weights import onnx_programs


def test_missing_packages_are_named_and_nothing_is_written(
    untrained_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(onnx_programs, "_PACKAGES", ("numpy", "no-such-package"))
    out = tmp_path / "out"
    assert main(["export", f"--run={untrained_run}", f"--out={out}", "--format=onnx"]) == 1
    said = capsys.readouterr().err
    assert "requires no-such-package: run pip install" in said
    assert not out.exists()
