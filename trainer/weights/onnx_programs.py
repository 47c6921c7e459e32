"""A model's two encoders as ONNX programs of any batch size, by torch.onnx.

video.onnx   uint8 frames [b, T, R, R, 3] -> clip, groups, group_of, share
text.onnx    int64 input_ids, attention_mask [b, L] -> embedding [b, E]
vocab.txt, tokenizer_config.json   the tokenizer
programs.json                      versions and the run's configuration; written last

Large programs have their parameters beside them, in video.onnx.data and text.onnx.data.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from trainer.data.tokenizer_settings import VOCABULARY
from trainer.errors import UserError
from trainer.runs.checkpoint import Loaded
from trainer.weights import svilm_format
from trainer.weights.hf_format import WeightsError

ABOUT = "programs.json"
_PROGRAM = pathlib.Path(__file__).with_name("torch_code") / "to_onnx.py"
_PACKAGES = ("torch", "transformers", "onnx", "onnxscript")


class PackagesError(UserError, ImportError):
    """Packages that are not installed."""


def write(folder: pathlib.Path, run: Loaded) -> None:
    """Write a model's programs, by PyTorch in a process of its own.

    Raises:
      NonFiniteError: a parameter is not finite.
      PackagesError: PyTorch or ONNX is not installed.
      WeightsError: PyTorch cannot convert the model, or the folder cannot be written.
    """
    versions = {name: _version(name) for name in _PACKAGES}
    if missing := [name for name, version in versions.items() if version is None]:
        raise PackagesError(
            f"--format onnx requires {', '.join(missing)}: run pip install '.[trainer,interop]' in "
            "svilm's sources"
        )
    with tempfile.TemporaryDirectory(prefix="svilm-") as scratch:
        svilm_format.write(pathlib.Path(scratch), run, card="")
        offline = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": scratch}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ABOUT).unlink(missing_ok=True)
            done = subprocess.run(
                [sys.executable, _PROGRAM, scratch, folder],
                env=os.environ | offline,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise WeightsError(f"PyTorch cannot write {folder} as ONNX: {last}")
            run.tokenizer.save(folder / VOCABULARY, run.config.text.tokens)
            about = versions | {"step": run.step, "config": json.loads(run.config.to_json())}
            (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise WeightsError(
                f"{folder} cannot be written: {error}; give a writable folder with free space"
            ) from None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
