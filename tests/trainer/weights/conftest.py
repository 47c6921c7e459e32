"""Checkpoints that differ from those of tests/data/parity."""

import json
import pathlib
import shutil

import pytest
import safetensors.numpy

DATA = pathlib.Path(__file__).parents[2] / "data" / "parity"


@pytest.fixture
def altered(tmp_path):
    """Copy a parity checkpoint with other tensors or settings."""

    def alter(name, tensors=lambda tensors: tensors, copy="altered", **settings):
        copy = tmp_path / copy
        shutil.copytree(DATA / name, copy)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | settings))
        held = safetensors.numpy.load_file(copy / "model.safetensors")
        safetensors.numpy.save_file(tensors(held), copy / "model.safetensors")
        return copy

    return alter
