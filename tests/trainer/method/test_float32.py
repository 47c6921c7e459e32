"""Models are of float32, whatever JAX is set to."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.distributed.mesh import one_device
from trainer.method.train_step import init_state, state_shapes
from trainer.runs import checkpoint, run_folder
from trainer.runs.checkpoint import CheckpointError, Checkpoints
from trainer.training import loop


@pytest.fixture
def wide(untrained_run, tmp_path):
    """A run as an earlier release saved it with JAX_ENABLE_X64=1, whose numbers are 1/3."""
    run = tmp_path / "wide"
    run.mkdir()
    for name in ("config.json", "vocab.txt"):
        shutil.copy(untrained_run / name, run)
    config = run_folder.read(run)[0]
    shapes = jax.eval_shape(lambda: init_state(config, one_device()))
    with jax.enable_x64(True), Checkpoints(run / "checkpoints", config) as checkpoints:
        state = jax.tree.map(
            lambda leaf: (
                jnp.full(leaf.shape, 1 / 3, jnp.float64)
                if jnp.issubdtype(leaf.dtype, jnp.floating)
                else jnp.zeros(leaf.shape, leaf.dtype)
            ),
            shapes,
        )
        checkpoints.save(state)
    return run


def test_a_run_of_another_precision_is_not_continued_silently(wide):
    config = run_folder.read(wide)[0]
    with Checkpoints(wide / "checkpoints", config) as checkpoints:
        shapes = state_shapes(config, one_device())
        with pytest.raises(CheckpointError, match=r"0 is not float32 \(tensor .* is float64\)"):
            checkpoints.restore_newest(shapes)


def test_a_run_of_another_precision_is_used_and_named(wide, capfd):
    leaves = jax.tree.leaves(checkpoint.load(wide).params)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    assert "0 is cast to float32: tensor" in capfd.readouterr().err


def test_from_python_training_refuses_64_bits(noisy_config, write_snapshot, tmp_path):
    snapshot = write_snapshot(clips=24, frames=4, height=18, width=24).folder
    with jax.enable_x64(True), pytest.raises(loop.TrainingError, match="JAX uses 64 bits"):
        loop.pretrain(noisy_config, snapshot, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_program_trains_alike_with_64_bits_asked_for(write_snapshot, tmp_path, toy):
    snapshot = write_snapshot(clips=16, frames=4, height=16, width=16).folder
    sizes = ("video.frames=4", "video.resolution=16", "video.patch=8", "input.short_side=16")
    settings = [f"--set={size}" for size in sizes]
    saved = {}
    for bits in ("0", "1"):
        run = tmp_path / bits
        done = subprocess.run(
            [
                *(sys.executable, "-m", "trainer", "pretrain", "--preset=tiny", "--max-steps=2"),
                *(f"--snapshot={snapshot}", f"--out={run}", *settings, *toy),
            ],
            env=os.environ | {"JAX_ENABLE_X64": bits},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert ("JAX_ENABLE_X64 is ignored" in done.stderr) == (bits == "1")
        for path in run.glob("checkpoints/2/*/_METADATA"):
            assert "float64" not in json.dumps(json.loads(path.read_text()))
        saved[bits] = checkpoint.load(run).params
    jax.tree.map(np.testing.assert_array_equal, saved["0"], saved["1"])
