"""A run made of an exported model: to evaluate, search, embed, or start other runs from."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from trainer.data.folder import write_file
from trainer.data.tokenizer_settings import VOCABULARY
from trainer.method.train_step import begin
from trainer.runs.checkpoint import Checkpoints
from trainer.runs.run_folder import write_data
from trainer.runs.run_path import RunPath
from trainer.weights import hf_format, svilm_format
from trainer.weights.hf_format import WeightsError


def write_run(folder: pathlib.Path, out: RunPath) -> int:
    """Write a run with the parameters of an exported model, bit for bit.

    Its only checkpoint has the model's step. data.json names the model's file, so that `pretrain`
    does not continue the run without the optimizer's state.

    Args:
      folder: the folder of `svilm-train export`.
      out: the run's folder, which must not have a checkpoint.

    Returns:
      The model's step.

    Raises:
      WeightsError, VocabularyError: the folder cannot be read.
      CheckpointError: the checkpoint cannot be written.
    """
    model = svilm_format.read(folder)
    data: dict[str, Any] = dict(model.data)
    data["imported"] = _sha256(folder / hf_format.TENSORS)
    marks = folder / svilm_format.SEEN
    if "seen" in data and not marks.exists():
        del data["seen"]  # Without the marks, the run has no record of its training clips.
    if isinstance(out, pathlib.Path):
        out.mkdir(parents=True, exist_ok=True)
    if "seen" in data:
        write_file(out / svilm_format.SEEN, marks.read_bytes())
    model.tokenizer.save(out / VOCABULARY, model.config.text.tokens)
    write_data(out, data)
    config = json.dumps(dataclasses.asdict(model.config), indent=2)
    write_file(out / "config.json", config.encode() + b"\n")
    state = begin(jax.tree.map(jnp.asarray, model.params), model.config)
    state = dataclasses.replace(state, step=jnp.int32(model.step))
    with Checkpoints(out / "checkpoints", model.config) as checkpoints:
        checkpoints.save(state)
    return model.step


def _sha256(path: pathlib.Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
