"""A model's two encoders as ONNX programs of any batch size, by torch.onnx.

video.onnx   uint8 frames [b, T, R, R, 3] -> clip, groups, group_of, share
text.onnx    int64 input_ids, attention_mask [b, L] -> embedding [b, E]
vocab.txt, tokenizer_config.json   the tokenizer
programs.json                      versions, figures and the run's configuration; written last

Large programs have their parameters beside them, in video.onnx.data and text.onnx.data. With int8
weights, a program is one file.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, Literal

from trainer.data.snapshot import Snapshot
from trainer.data.tokenizer_settings import VOCABULARY
from trainer.errors import UserError
from trainer.runs.checkpoint import Loaded
from trainer.weights import onnx_figures, svilm_format
from trainer.weights.hf_format import WeightsError

ABOUT = "programs.json"
_CODE = pathlib.Path(__file__).with_name("torch_code")
_PACKAGES = ("torch", "transformers", "onnx", "onnxscript")

Weights = Literal["float32", "int8"]


class PackagesError(UserError, ImportError):
    """Packages that are not installed."""


def write(
    folder: pathlib.Path,
    run: Loaded,
    weights: Weights = "float32",
    snapshot: Snapshot | None = None,
) -> dict[str, Any] | None:
    """Write a model's programs, by PyTorch in a process of its own.

    Args:
      folder: the programs' folder.
      run: the model.
      weights: the type of the weights.
      snapshot: clips that the run was not trained on; None: the loss by int8 is not measured.

    Returns:
      What programs.json has of sizes and figures, by type of weights; None for float32 alone.

    Raises:
      NonFiniteError: a parameter, or an embedding of the snapshot, is not finite.
      PackagesError: PyTorch or ONNX is not installed.
      SnapshotError: as `onnx_figures.compare` says.
      WeightsError: PyTorch cannot convert the model, or the folder cannot be written.
    """
    wanted = (*_PACKAGES, "onnxruntime") if weights == "int8" else _PACKAGES
    versions = {name: _version(name) for name in wanted}
    if missing := [name for name, version in versions.items() if version is None]:
        raise PackagesError(
            f"--format onnx requires {', '.join(missing)}: run pip install '.[trainer,interop]' in "
            "svilm's sources"
        )
    about: dict[str, Any] = {**versions, "step": run.step, "weights": weights}
    with tempfile.TemporaryDirectory(prefix="svilm-") as scratch:
        model, exact = (pathlib.Path(scratch) / name for name in ("model", "float32"))
        svilm_format.write(model, run, card="")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ABOUT).unlink(missing_ok=True)
            if weights == "float32":
                _run("to_onnx.py", model, folder, scratch)
            else:
                exact.mkdir()
                _run("to_onnx.py", model, exact, scratch)
                for name in onnx_figures.PROGRAMS:
                    (folder / f"{name}.data").unlink(missing_ok=True)
                _run("to_int8.py", exact, folder, scratch)
                about["compared"] = _compared(exact, folder, run, snapshot)
            run.tokenizer.save(folder / VOCABULARY, run.config.text.tokens)
            about["config"] = json.loads(run.config.to_json())
            (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise WeightsError(
                f"{folder} cannot be written: {error}; give a writable folder with free space"
            ) from None
    return about.get("compared")


def _run(program: str, folder: pathlib.Path, out: pathlib.Path, scratch: str) -> None:
    """Run a program of torch_code: it writes programs to `out`."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": scratch}
    done = subprocess.run(
        [sys.executable, _CODE / program, folder, out],
        env=os.environ | offline,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WeightsError(f"{program} cannot write {out} as ONNX: {last}")


def _compared(
    exact: pathlib.Path, folder: pathlib.Path, run: Loaded, snapshot: Snapshot | None
) -> dict[str, Any]:
    """Return sizes of both types of weights, and their figures on a snapshot."""
    folders = {"float32": exact, "int8": folder}
    figures = onnx_figures.compare(folders, run, snapshot) if snapshot else {}
    compared: dict[str, Any] = {
        name: {"bytes": onnx_figures.size(path), **figures.get(name, {})}
        for name, path in folders.items()
    }
    if snapshot:
        compared["snapshot"] = {
            "dataset": snapshot.manifest.dataset,
            "records": len(snapshot),
            "manifest_sha256": snapshot.manifest_sha256,
        }
    return compared


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
