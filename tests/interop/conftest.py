"""Exported models, and the answers of the runs that they come from."""

import dataclasses
import os
import tempfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.cli.main import main
from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.data.tokenizer import Tokenizer
from trainer.distributed.mesh import one_device
from trainer.inference import api
from trainer.method.train_step import begin, state_shapes
from trainer.runs.checkpoint import Checkpoints

# No test may ask the Hub, or use the caches of the machine. Libraries read this at their import.
_CACHE = tempfile.TemporaryDirectory()
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _CACHE.name, "CROISSANT_CACHE": _CACHE.name}

CAPTIONS = ["a red ring is rising", "a blue disc", "a red ring, a blue disc and a green star " * 4]
_SMALL = (
    *("video.width=32", "video.layers=2", "video.mlp_width=64", "video.grouping_after=1,2"),
    *("text.width=32", "text.layers=1", "text.mlp_width=64", "joint_width=16"),
)
SETTINGS = {
    "tiny": (),
    "groupvit": (*_SMALL, "video.grouping=groupvit", "video.gelu=erf", "average_decay=0.9"),
    # The settings of a run that starts from CLIP or from an encoder with registers.
    "image": (*_SMALL, "video.prefix_tokens=3", "video.norm_before=true", "video.gelu=quick"),
    # The crop is smaller than the model's frames, and so scaled.
    "kmax": (
        *(*_SMALL, "video.grouping=kmax", "loss.learn_temperatures=true"),
        *("video.resolution=84", "video.pixel_mean=0.4,0.5,0.6"),
    ),
}


def _leaf(path, shape):
    """Return a parameter for which no bias, scale or position is without effect."""
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape.shape)
    if name.endswith("kernel"):
        inputs = values.size // values.shape[-1] if "out" in name else values.shape[0]
        values /= inputs**0.5
    elif name.endswith("scale"):
        values = 1 + 0.1 * values
    else:
        values *= 0.1
    return jnp.asarray(values, jnp.float32)


def write_run(folder, config):
    """Write a run of random parameters."""
    tokenizer = Tokenizer.train([*CAPTIONS, "A footage of a {}."], size=90)
    config = override(config, [f"text.vocabulary={len(tokenizer.pieces)}"])
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    tokenizer.save(folder / "vocab.txt")
    shapes = state_shapes(config, one_device()).params
    state = begin(jax.tree_util.tree_map_with_path(_leaf, shapes), config)
    state = dataclasses.replace(state, step=jnp.int32(7))
    with Checkpoints(folder / "checkpoints", config) as checkpoints:
        checkpoints.save(state)
    return folder


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Return a function that makes a run and its export: config -> (run, folder)."""

    def make(config):
        place = tmp_path_factory.mktemp("exported")
        run, out = write_run(place / "run", config), place / "hf"
        assert main(["export", f"--run={run}", f"--out={out}"]) == 0
        return run, out

    return make


@pytest.fixture(scope="session", params=SETTINGS)
def pair(request, make_run):
    """Return a model in JAX and the folder of its export."""
    run, out = make_run(override(PRESETS["tiny"], [*SETTINGS[request.param]]))
    return api.load(run), out
