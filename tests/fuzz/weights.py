"""Published weights: Hugging Face folders, scenic's file and a localisation model."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from flax import serialization

from tests.fuzz import mutate
from tests.fuzz.engine import Target
from tests.fuzz.folder import folder
from trainer.configs.config import TextConfig, VideoConfig
from trainer.data.tokenizer import Tokenizer, VocabularyError
from trainer.tasks.localisation import saved
from trainer.tasks.localisation.training import LocalisationError
from trainer.weights import bert, image, scenic, video
from trainer.weights import hf_format as weights_folder
from trainer.weights.hf_format import WeightsError

_PARITY = pathlib.Path(__file__).parents[1] / "data" / "parity"
_IMAGES = pathlib.Path(__file__).parents[1] / "data" / "image_encoders" / "5.24.0"
_REFUSALS = (WeightsError, VocabularyError, LocalisationError)


class Form(NamedTuple):
    """A folder and its reader."""

    name: str
    files: dict[str, bytes]
    read: Callable[[pathlib.Path], Any]


def targets() -> list[Target]:
    """Return one target per file of each format."""
    return [
        Target(
            f"{form.name} {name}",
            [data],
            functools.partial(_check, form, name),
            _mutation(name),
            seconds=20.0,
        )
        for form in forms()
        for name, data in form.files.items()
    ]


def _mutation(name: str) -> mutate.Mutation:
    if name.endswith(".safetensors"):
        return mutate.safetensors
    if name.endswith(".json"):
        return mutate.json_text
    return mutate.lines if name.endswith(".txt") else _msgpack


def _msgpack(data: bytes, draw: random.Random) -> bytes:
    """Mutate mostly near the beginning, which has names and types."""
    if draw.random() < 0.5:
        cut = draw.randrange(1, 400)
        return mutate.raw(data[:cut], draw) + data[cut:]
    return mutate.raw(data, draw)


def _check(form: Form, name: str, data: bytes) -> None:
    path = folder() / form.name.replace(" ", "-")
    path.mkdir(exist_ok=True)
    for one, content in (form.files | {name: data}).items():
        there = path / one
        if not there.exists() or there.read_bytes() != content:
            there.write_bytes(content)
    with contextlib.suppress(*_REFUSALS):
        form.read(path)


def _video(path: pathlib.Path) -> None:
    checkpoint = weights_folder.read(path)
    config = video.video_config(checkpoint, _VIDEO)
    _finite(video.params(checkpoint, config))


def _image(path: pathlib.Path) -> None:
    checkpoint = weights_folder.read(path)
    if checkpoint.config.get("model_type") in image.MODEL_TYPES:
        config = image.video_config(checkpoint, dataclasses.replace(_VIDEO, resolution=168))
        image.params(checkpoint, config)  # Start.fill refuses products that are not finite


def _text(path: pathlib.Path) -> None:
    checkpoint = weights_folder.read(path)
    config = bert.text_config(checkpoint, TextConfig())
    _finite(bert.params(checkpoint, config))
    Tokenizer.from_vocabulary(path / "vocab.txt").encode(["a red ring"], 8)


def _scenic(path: pathlib.Path) -> None:
    checkpoint = scenic.read(path / "checkpoint")
    config = scenic.video_config(checkpoint, _VIDEO)
    _finite(scenic.params(checkpoint, config))


def _finite(tree: Any) -> None:
    """Check that the weights are finite."""
    if isinstance(tree, dict):
        for value in tree.values():
            _finite(value)
    else:
        assert np.isfinite(tree).all(), "weights that are not finite"


_VIDEO = VideoConfig(
    frames=4,
    resolution=16,
    patch=8,
    width=8,
    layers=1,
    heads=2,
    mlp_width=16,
    grouping_after=(1,),
)


def _arrays(config: VideoConfig, places: Any) -> dict[str, np.ndarray]:
    return {place.name: np.full(place.shape, 0.5, np.float32) for place in places(config)}


@functools.cache
def forms() -> tuple[Form, ...]:
    """Return a small folder of each format."""
    windows = _VIDEO.windows * _VIDEO.patches
    vivit = {
        "model_type": "vivit",
        "hidden_act": "gelu_fast",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_frames": 4,
        "image_size": 16,
        "tubelet_size": [2, 8, 8],
        "layer_norm_eps": 1e-6,
    }
    tensors = _arrays(_VIDEO, video.places)
    tensors["embeddings.position_embeddings"] = np.zeros((1, 1 + windows, 8), np.float32)
    preprocessor = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    text = TextConfig(
        vocabulary=30, positions=8, tokens=8, width=8, layers=1, heads=2, mlp_width=16
    )
    of_text = {place.name: np.full(place.shape, 0.5, np.float32) for place in bert.places(text)}
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"p{number}" for number in range(25))]
    of_scenic: dict[str, Any] = {}
    flat = {place.name: np.full(place.shape, 0.5, np.float32) for place in scenic.places(_VIDEO)}
    flat["Transformer.posembed_input.pos_embedding"] = np.zeros((1, windows, 8), np.float32)
    for name, array in flat.items():
        *above, last = name.split(".")
        inside = of_scenic
        for part in above:
            inside = inside.setdefault(part, {})
        inside[last] = array
    return (
        Form(
            "vivit",
            {
                "config.json": json.dumps(vivit).encode(),
                "preprocessor_config.json": json.dumps(preprocessor).encode(),
                "model.safetensors": safetensors.numpy.save(tensors, {"format": "pt"}),
            },
            _video,
        ),
        Form(
            "vivit shards",
            {
                "config.json": json.dumps(vivit).encode(),
                "model.safetensors.index.json": json.dumps(
                    {"weight_map": dict.fromkeys(tensors, "model-1.safetensors")}
                ).encode(),
                "model-1.safetensors": safetensors.numpy.save(tensors),
            },
            _video,
        ),
        Form(
            "bert",
            {
                "config.json": json.dumps(bert.settings(text)).encode(),
                "model.safetensors": safetensors.numpy.save(of_text),
                "vocab.txt": "\n".join(pieces).encode(),
            },
            _text,
        ),
        Form(
            "scenic",
            {"checkpoint": serialization.msgpack_serialize({"params": of_scenic})},
            _scenic,
        ),
        *(
            Form(name, {one.name: one.read_bytes() for one in (_IMAGES / name).iterdir()}, _image)
            for name in ("CLIPModel", "Dinov2WithRegistersModel")
        ),
        Form("localisation", _localisation(), lambda path: saved.load(path)),
    )


def _localisation() -> dict[str, bytes]:
    """Return a localisation model's two files, as `saved.save` writes them."""
    import jax
    import jax.numpy as jnp

    from trainer.configs.overrides import override
    from trainer.tasks.localisation import training
    from trainer.tasks.localisation.gtad import GTAD

    settings = (
        *("network.length=12", "network.width=16", "network.groups=4", "network.group_width=2"),
        *("network.map_width=16", "network.map_hidden=16"),
    )
    config = override(training.PRESETS["shapes"], list(settings))
    network = config.network
    regions = network.length * (network.length + 1) // 2 + 1
    bins = network.inner_bins + network.context_bins
    shapes: Any = jax.eval_shape(
        GTAD(network).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, network.length, 8), jnp.float32),
        jax.ShapeDtypeStruct((regions, bins, network.length), jnp.float32),
    )
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes["params"])
    classifier = {"weight": np.zeros((8, 2), np.float32), "bias": np.zeros(2, np.float32)}
    path = folder() / "model"
    path.mkdir()
    saved.save(path, training.Model(config, ["run", "sit"], params, classifier, 3))
    return {one.name: one.read_bytes() for one in path.iterdir()}
