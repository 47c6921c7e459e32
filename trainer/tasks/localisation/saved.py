"""The files of a trained localisation model.

localisation.json   its configuration, its classes, its epoch, and the encoder of its features
model.safetensors   G-TAD's weights by its authors' names and in their layout (pytorch_layout.py),
                    and those of the classifier: classifier.weight and so on
"""

import dataclasses
import json
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from protos.strict_json import first_line, parse_object
from trainer.configs.fields import build
from trainer.data import safetensors_file
from trainer.finite import finite_tensors
from trainer.tasks.localisation import pytorch_layout
from trainer.tasks.localisation.training import LocalisationConfig, LocalisationError, Model

_SETTINGS, _WEIGHTS = "localisation.json", "model.safetensors"
_OF_CLASSIFIER = "classifier."


def save(folder: pathlib.Path, model: Model) -> None:
    """Write a model to a folder.

    Raises:
      NonFiniteError: a tensor is not finite; nothing is written.
    """
    state = pytorch_layout.state_of(model.params)
    state |= {_OF_CLASSIFIER + name: array for name, array in model.classifier.items()}
    tensors = {name: np.asarray(array, np.float32) for name, array in state.items()}
    finite_tensors(str(folder / _WEIGHTS), tensors)
    safetensors_file.save(tensors, folder / _WEIGHTS)
    settings = {
        "config": dataclasses.asdict(model.config),
        "classes": model.classes,
        "epoch": model.epoch,
        "encoder": model.encoder,
    }
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load(folder: pathlib.Path) -> Model:
    """Read a model from a folder.

    Raises:
      LocalisationError: the folder has no model, or a damaged one.
    """
    try:
        settings = parse_object((folder / _SETTINGS).read_bytes())
        if missing := {"config", "classes", "epoch"} - settings.keys():
            raise ValueError(f"{_SETTINGS} has no {', '.join(sorted(missing))}")
        state = safetensors.numpy.load_file(folder / _WEIGHTS)
        finite_tensors(str(folder / _WEIGHTS), state)
        of_classifier = {name for name in state if name.startswith(_OF_CLASSIFIER)}
        return Model(
            build(LocalisationConfig, settings["config"]),
            settings["classes"],
            pytorch_layout.params({k: v for k, v in state.items() if k not in of_classifier}),
            {name.removeprefix(_OF_CLASSIFIER): state[name] for name in of_classifier},
            settings["epoch"],
            settings.get("encoder"),
        )
    except FileNotFoundError as error:
        raise LocalisationError(
            f"{error.filename} is missing: give the folder of a trained model, or --features to "
            "train one"
        ) from None
    except (ValueError, safetensors.SafetensorError) as error:
        raise LocalisationError(
            f"{folder} has a damaged model ({first_line(error)}): train again"
        ) from None
