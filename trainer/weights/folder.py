"""A checkpoint folder in the Hugging Face layout: config.json beside model.safetensors."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

CONFIG, TENSORS = "config.json", "model.safetensors"


class WeightsError(ValueError):
    """A checkpoint folder that cannot be read, or does not fit the model."""


class Checkpoint(NamedTuple):
    """What a folder holds."""

    folder: pathlib.Path
    config: dict[str, Any]
    tensors: dict[str, np.ndarray]

    def setting(self, name: str, default: Any = None) -> Any:
        """A value of config.json.

        Raises:
          WeightsError: it is not there and has no default.
        """
        value = self.config.get(name, default)
        if value is None:
            raise WeightsError(f"{self.folder / CONFIG} has no {name!r}: it must say it")
        return value


def read(folder: pathlib.Path) -> Checkpoint:
    """Reads a folder; floating-point tensors become float32.

    Raises:
      WeightsError: a file is missing or damaged, or of a kind that is not read.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = safetensors.numpy.load_file(folder / TENSORS)
    except FileNotFoundError:
        missing = TENSORS if (folder / CONFIG).exists() else CONFIG
        raise WeightsError(
            f"{folder} has no {missing}: give the folder of a checkpoint in the Hugging Face "
            "layout; PyTorch's .bin files are pickles, which can run code, so convert them to "
            "safetensors first"
        ) from None
    except (ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{folder} is damaged: {error}") from None
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read: {error.strerror or error}") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{folder / CONFIG} is damaged: it is no JSON object")
    widened = {
        name: tensor if tensor.dtype.kind in "iub" else tensor.astype(np.float32)
        for name, tensor in tensors.items()
    }
    return Checkpoint(folder, config, widened)


def write(folder: pathlib.Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Writes a folder, config.json last, so that one with it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    safetensors.numpy.save_file(contiguous, folder / TENSORS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
