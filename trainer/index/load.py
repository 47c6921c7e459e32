"""The function `svilm.load`: the model of a run or of an export, or an index."""

import os
import pathlib

from trainer.data.folder import in_bucket
from trainer.index import files
from trainer.index.index import Index
from trainer.inference import api
from trainer.inference.api import Model
from trainer.runs.checkpoint import Loaded
from trainer.weights import hf_format, svilm_format


def load(folder: str | os.PathLike[str]) -> Model | Index:
    """Load a trained model or an index.

    Args:
      folder: one of
        - a run, for its last checkpoint, or RUN/checkpoints/STEP, on a disk or gs://bucket/folder;
        - a model in the Hugging Face format, of `svilm-train export`;
        - an index, of `svilm-train index`.

    Returns:
      The model, with the EMA of its parameters if the run kept one, or the index.

    Raises:
      RunError, CheckpointError, WeightsError, SearchIndexError: the folder cannot be read.
    """
    if in_bucket(folder):
        return api.load(folder)
    path = pathlib.Path(folder)
    if files.is_index(path):
        return Index.open(path)
    if any((path / name).is_file() for name in (hf_format.TENSORS, hf_format.INDEX)):
        model = svilm_format.read(path)
        return Model(
            Loaded(model.config, model.tokenizer, model.params, model.step, model.averaged), path
        )
    return api.load(folder)
