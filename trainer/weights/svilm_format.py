"""A whole model in one folder of the Hugging Face layout, and back: `model_type` "svilm".

config.json        `svilm`: the run's configuration. `svilm_run`: its step and data.json
model.safetensors  every parameter: encoders, group tokens, grouping blocks, projections,
                   temperatures if they are learned
vocab.txt, tokenizer_config.json                   the tokenizer, as BERT's
processor_config.json                              frames, their size and scaling
*_svilm.py                                         the model in PyTorch: weights/torch_code
modules.json, config_sentence_transformers.json    for Sentence-Transformers
seen.bin           marks of the training videos: runs/seen_clips.py
README.md          the model card: weights/model_card.py

Tensors have the names of the parameters, with PyTorch's layout. A kernel or scale is a `weight`.
`in`, a keyword that breaks PyTorch's own exporters, is `input`.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxtyping import PyTree

from protos import contract
from trainer.configs.config import Config
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_settings import VOCABULARY
from trainer.distributed.mesh import one_device
from trainer.method.train_step import state_shapes
from trainer.runs.checkpoint import Loaded
from trainer.runs.run_folder import read_data
from trainer.runs.tensor_shapes import by_name
from trainer.weights import hf_format, param_mapping
from trainer.weights.hf_format import WeightsError
from trainer.weights.param_mapping import LINEAR, SAME, Layout, Place, heads_first, heads_last

MODEL_TYPE = "svilm"
CARD = "README.md"
SEEN = "seen.bin"
_CODE = pathlib.Path(__file__).with_name("torch_code")
_SETTINGS, _TRAINED = "svilm", "svilm_run"
_NAMES = {"kernel": "weight", "scale": "weight", "in": "input"}


class Model(NamedTuple):
    """The contents of a folder."""

    config: Config
    tokenizer: Tokenizer
    params: PyTree
    step: int
    averaged: bool
    data: dict[str, Any]  # data.json of its run; {} if it had none


def places(shapes: PyTree) -> Iterator[Place]:
    """Yield the mapping of every parameter of a model.

    >>> import numpy as np
    >>> shapes = {"query": {"kernel": np.zeros((6, 2, 3))}, "norm": {"scale": np.zeros(6)}}
    >>> [(place.name, place.shape) for place in places(shapes)]
    [('norm.weight', (6,)), ('query.weight', (6, 6))]
    """
    for path, leaf in by_name(shapes).items():
        *above, last = path.split(".")
        name = ".".join(_NAMES.get(part, part) for part in path.split("."))
        layout, shape = _layout(above, last, tuple(leaf.shape))
        yield Place(path, name, shape, layout)


def _layout(above: list[str], last: str, shape: tuple[int, ...]) -> tuple[Layout, tuple[int, ...]]:
    """Return PyTorch's layout and shape of a parameter, by its name and shape."""
    if last == "kernel" and len(shape) == 3:  # a projection to heads, or from them
        first, second, third = shape
        if above[-1] == "out":
            return heads_first(first), (third, first * second)
        return heads_last(second), (second * third, first)
    if last == "kernel":
        return LINEAR, shape[::-1]
    if last == "bias" and len(shape) == 2:
        return heads_last(shape[0]), (shape[0] * shape[1],)
    return SAME, shape


def write(folder: pathlib.Path, run: Loaded, card: str) -> None:
    """Write a run's model, with config.json last. The head of a task is left out.

    Args:
      folder: folder to write; a missing one is created.
      run: the model.
      card: the text of the model card.

    Raises:
      NonFiniteError: a parameter is not finite.
      WeightsError: the folder cannot be written.
    """
    config = run.config
    params = {name: part for name, part in run.params.items() if name != "head"}
    tensors = param_mapping.to_tensors(params, places(params))
    data = data_of(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hf_format.CONFIG).unlink(missing_ok=True)
        for source in sorted(_CODE.glob("*_svilm.py")):
            (folder / source.name).write_bytes(source.read_bytes())
        run.tokenizer.save(folder / VOCABULARY, config.text.tokens)
        (folder / CARD).write_text(card, encoding="utf-8")
        (folder / SEEN).unlink(missing_ok=True)
        if run.folder is not None and "seen" in data:
            (folder / SEEN).write_bytes((run.folder / SEEN).read_bytes())
    except OSError as error:
        raise WeightsError(
            f"{folder} cannot be written: {error}; give a writable folder with free space"
        ) from None
    trained = {"step": run.step, "averaged": run.averaged, "data": data}
    others = {
        "processor_config.json": _processor(config),
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_svilm.SViLMEmbedding"}
        ],
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "similarity_fn_name": "cosine",
            "prompts": {},
            "default_prompt_name": None,
        },
    }
    hf_format.write(folder, _model(config) | {_TRAINED: trained}, tensors, others)


def data_of(run: Loaded) -> dict[str, Any]:
    """Return the data.json of a model's run, without the paths of its snapshots and origin."""
    if run.folder is None:
        return {}
    try:
        data = read_data(run.folder)
    except OSError:  # an early release, or a lone config.json beside checkpoints
        return {}
    return {name: value for name, value in data.items() if name not in ("start", "lineage")}


def _model(config: Config) -> dict[str, Any]:
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["SViLMModel"],
        "auto_map": {
            "AutoConfig": "configuration_svilm.SViLMConfig",
            "AutoModel": "modeling_svilm.SViLMModel",
            "AutoProcessor": "processing_svilm.SViLMProcessor",
        },
        "dtype": "float32",
        _SETTINGS: json.loads(config.to_json()),
    }


def _processor(config: Config) -> dict[str, Any]:
    video = config.video
    return {
        "processor_class": "SViLMProcessor",
        "auto_map": {"AutoProcessor": "processing_svilm.SViLMProcessor"},
        "frames": video.frames,
        "resolution": video.resolution,
        "short_side": config.input.short_side,
        "pixel_mean": list(video.pixel_mean),
        "pixel_std": list(video.pixel_std),
        "prompt": contract.PROMPT_TEMPLATES[0],
    }


def read(folder: pathlib.Path) -> Model:
    """Read a folder that `write` or transformers' `save_pretrained` wrote.

    Raises:
      WeightsError: it has another model, a file is missing or damaged, or a tensor does not fit.
      VocabularyError: the tokenizer is damaged.
    """
    checkpoint = hf_format.read(folder)
    if checkpoint.config.get("model_type") != MODEL_TYPE:
        raise WeightsError(
            f"{folder}: model_type is {checkpoint.config.get('model_type')!r}, not {MODEL_TYPE!r}: "
            "give a folder of `svilm-train export --format huggingface`"
        )
    settings = checkpoint.setting(_SETTINGS, dict)
    trained = checkpoint.setting(_TRAINED, dict, {})
    step, data = trained.get("step", 0), trained.get("data", {})
    if type(step) is not int or step < 0 or not isinstance(data, dict):
        raise WeightsError(f"{folder / hf_format.CONFIG}: {_TRAINED!r} has no valid step and data")
    try:
        config = Config.from_json(json.dumps(settings))
    except ValueError as error:
        raise WeightsError(
            f"{folder / hf_format.CONFIG} is of another release of svilm, or damaged: {error}"
        ) from None
    shapes = state_shapes(config, one_device()).params
    params = param_mapping.to_params(checkpoint, "", places(shapes), "")
    tokenizer = Tokenizer.from_vocabulary(folder)
    if len(tokenizer.pieces) > config.text.vocabulary:
        raise WeightsError(
            f"{folder} has {len(tokenizer.pieces):,} pieces, but the encoder "
            f"{config.text.vocabulary:,} rows: restore its original {VOCABULARY}"
        )
    return Model(config, tokenizer, params, step, bool(trained.get("averaged")), data)
