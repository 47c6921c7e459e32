"""Checkpoint folders in the Hugging Face layout: config.json beside model.safetensors.

A large model has several shards instead, and model.safetensors.index.json, whose `weight_map` gives
the shard of each tensor.
"""

import dataclasses
import json
import pathlib
import types
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from trainer.configs.config import Gelu, TextConfig, VideoConfig
from trainer.data import safetensors_file
from trainer.errors import UserError
from trainer.finite import finite_tensors

CONFIG, TENSORS = "config.json", "model.safetensors"
INDEX = f"{TENSORS}.index.json"
PREPROCESSOR, VIDEO_PREPROCESSOR = "preprocessor_config.json", "video_preprocessor_config.json"
"""Files with the pixel scaling. A video checkpoint may have either, both or none of them."""

PROCESSOR = "processor_config.json"
"""The file in which transformers 5 keeps the pixel scaling of a model of images and texts."""

_GELUS: dict[str, Gelu] = {
    **{"gelu": "erf", "gelu_fast": "tanh", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"},
    "quick_gelu": "quick",
}

T = TypeVar("T")
C = TypeVar("C", VideoConfig, TextConfig)


class WeightsError(UserError, ValueError):
    """A checkpoint that cannot be read, or does not fit the model."""


class Checkpoint(NamedTuple):
    """The contents of a checkpoint folder, or of a file of scenic."""

    folder: pathlib.Path  # path of the folder or file
    config: dict[str, Any]
    preprocessor: dict[str, Any]  # empty without a preprocessor file
    tensors: dict[str, np.ndarray]
    preprocessor_name: str = PREPROCESSOR  # of its file

    def setting(self, name: str, kind: type[T], default: T | None = None) -> T:
        """Return a value of config.json.

        Raises:
          WeightsError: the value has another type, or is missing or null without a default.
        """
        value = self.config.get(name)
        value = default if value is None else value
        if value is None:
            raise WeightsError(f"{self.folder / CONFIG} has no {name!r}: add it")
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(value) is not kind:
            raise WeightsError(
                f"{self.folder / CONFIG}: {name!r} must be {kind.__name__}, got {value!r}"
            )
        return value


def read(folder: pathlib.Path) -> Checkpoint:
    """Read a folder and convert floating-point tensors to float32.

    Raises:
      WeightsError: a file is missing or damaged, or has an unsupported format.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        preprocessor, preprocessor_name = _preprocessor(folder)
        tensors = _tensors(folder)
    except FileNotFoundError:
        missing = f"{TENSORS} nor {INDEX}" if (folder / CONFIG).exists() else CONFIG
        raise WeightsError(
            f"{folder} has no {missing}: give a checkpoint folder in the Hugging Face layout, or "
            "scenic's ViViT file; convert PyTorch's .bin files to safetensors first, because "
            "pickles can run code"
        ) from None
    except WeightsError:
        raise
    except (ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{folder} is damaged: {error}") from None
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read: {error.strerror or error}") from None
    for name, found in ((CONFIG, config), (preprocessor_name, preprocessor)):
        if not isinstance(found, dict):
            raise WeightsError(f"{folder / name} is damaged: it is not a JSON object")
    if method := config.get("quantization_config"):
        raise WeightsError(
            f"{folder / CONFIG}: the weights are quantised ({method!r:.80}): give the original ones"
        )
    return Checkpoint(folder, config, preprocessor, widened(tensors), preprocessor_name)


def _preprocessor(folder: pathlib.Path) -> tuple[Any, str]:
    """Return the settings of the pixels' processor, and the name of their file.

    As in transformers, those inside a processor's file override the others.
    """
    preprocessor, preprocessor_name = {}, PREPROCESSOR
    for name in (VIDEO_PREPROCESSOR, PREPROCESSOR, PROCESSOR):
        if not (folder / name).exists():
            continue
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        if name == PROCESSOR and isinstance(found, dict):
            found = found.get("video_processor", found.get("image_processor"))
            if found is None:  # as transformers wrote this file before 5.0
                continue
        preprocessor, preprocessor_name = found, name
    return preprocessor, preprocessor_name


def tensor_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the files with a folder's tensors: one file, or the shards of its index.

    Raises:
      WeightsError: the index is damaged, or a shard's name is not that of a .safetensors file
        beside it.
      OSError: the index cannot be read.
    """
    return sorted({folder / shard for shard in (_index(folder) or {"": TENSORS}).values()})


def _tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    index, tensors = _index(folder), {}
    for path in tensor_files(folder):
        if index and not path.exists():
            raise WeightsError(f"{folder} has no {path.name}, but its index lists it: add it")
        try:
            held = safetensors.numpy.load_file(path)
        except (AttributeError, KeyError, TypeError) as error:
            # Quantised weights have numbers of 8 or fewer bits, which NumPy may not know.
            raise WeightsError(
                f"{path} has a number type that NumPy does not support ({error}): convert it to "
                "float16, bfloat16 or float32"
            ) from None
        wanted = {name for name, shard in index.items() if shard == path.name}
        if index and (wrong := sorted(held.keys() ^ wanted)):
            raise WeightsError(
                f"{path} does not match the index: {', '.join(wrong)} differ; download all files "
                "of the folder again, from one version"
            )
        tensors |= held
    return tensors


def _index(folder: pathlib.Path) -> dict[str, str]:
    """Return the shard of each tensor; empty for a checkpoint in one file."""
    path = folder / INDEX
    if (folder / TENSORS).exists() or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"].items()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: it has no weight_map ({error!r})") from None
    for _, shard in found:
        if not isinstance(shard, str) or pathlib.PurePath(shard).name != shard:
            raise WeightsError(f"{path}: {shard!r} is not a file name in its folder")
        if not shard.endswith(".safetensors"):
            raise WeightsError(f"{path}: {shard} is not supported, shards must be .safetensors")
    return dict(found)


def widened(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert floating-point tensors to float32.

    >>> widened({"w": np.ones(2, np.float16)})["w"].dtype
    dtype('float32')
    """
    return {
        name: tensor if tensor.dtype.kind in "iub" else tensor.astype(np.float32)
        for name, tensor in tensors.items()
    }


def sized(checkpoint: Checkpoint, config: C, **sizes: Any) -> C:
    """Return a configuration with the sizes of a checkpoint.

    Raises:
      WeightsError: the sizes conflict with the rest of the configuration.
    """
    if sizes["layers"] > len(checkpoint.tensors):
        raise WeightsError(
            f"{checkpoint.folder} has {len(checkpoint.tensors):,} tensors, too few for "
            f"{sizes['layers']:,} layers: correct its num_hidden_layers"
        )
    try:
        return dataclasses.replace(config, **sizes)
    except ValueError as error:
        raise WeightsError(
            f"{checkpoint.folder} does not fit the configuration: {error}; change it with --set"
        ) from None


def gelu(checkpoint: Checkpoint) -> Gelu:
    """Return the GELU variant that a checkpoint names.

    Raises:
      WeightsError: it has another activation, or names none.
    """
    name = checkpoint.setting("hidden_act", str)
    if name not in _GELUS:
        raise WeightsError(
            f"{checkpoint.folder}: hidden_act must be one of {list(_GELUS)}, got {name!r}"
        )
    return _GELUS[name]


def write(
    folder: pathlib.Path,
    config: dict[str, Any],
    tensors: dict[str, np.ndarray],
    others: Mapping[str, Any] = types.MappingProxyType({}),
) -> None:
    """Write a folder, with config.json last, so that a folder with config.json is complete.

    Args:
      folder: folder to write; a missing one is created.
      config: values of config.json.
      tensors: tensors by name.
      others: values of further JSON files, by file name.

    Raises:
      NonFiniteError: a tensor is not finite; nothing is written.
      WeightsError: the folder cannot be written.
    """
    finite_tensors(str(folder), tensors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        safetensors_file.save(tensors, folder / TENSORS, {"format": "pt"})
        for name, values in (*others.items(), (CONFIG, config)):
            text = json.dumps(values, indent=2) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{folder} cannot be written: {error}; give a writable folder with free space"
        ) from None
