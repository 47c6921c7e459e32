import gc
import json
import shutil
import subprocess
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.configs.overrides import OverrideError, override
from trainer.distributed.mesh import one_device
from trainer.method.train_step import init_state, state_shapes
from trainer.runs import checkpoint, checksums
from trainer.runs.checkpoint import CheckpointError, Checkpoints
from trainer.runs.run_folder import RunError

STEPS = 10


@pytest.fixture
def config(small_config, tokenizer):
    # AdamW's state has a counter and two moments, and nodes without arrays.
    pieces = f"text.vocabulary={len(tokenizer.pieces)}"
    return override(small_config, ["optimizer.name=adamw", "optimizer.weight_decay=0.1", pieces])


@pytest.fixture
def run(tmp_path, config, tokenizer):
    """A run's folder, as pretrain leaves it, without checkpoints."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    tokenizer.save(folder / "vocab.txt")
    return folder


@pytest.fixture
def state(run):
    """A state whose numbers are all different."""
    config = checkpoint.run_folder.read(run)[0]
    state = init_state(config, mesh=one_device())
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(rng.integers(1, 1000, leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(tree, leaves).replace(step=jnp.int32(4))


def save(run, state):
    with Checkpoints(run / "checkpoints", checkpoint.run_folder.read(run)[0]) as checkpoints:
        checkpoints.save(state)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_state_comes_back_to_the_bit(run, state):
    save(run, state)
    config = checkpoint.run_folder.read(run)[0]
    with Checkpoints(run / "checkpoints") as checkpoints:
        assert checkpoints.latest() == 4
        restored = checkpoints.restore(4, state_shapes(config, one_device()))
    assert_equal(restored, state)
    assert restored.step.dtype == state.step.dtype


def test_an_average_may_begin_late(run, state):
    save(run, state)
    config = override(checkpoint.run_folder.read(run)[0], ["average_decay=0.9"])
    with Checkpoints(run / "checkpoints") as checkpoints:
        restored = checkpoints.restore(4, state_shapes(config, one_device()))
    assert_equal(restored.average, state.params)
    assert not checkpoint.load(run).averaged


def test_a_state_may_be_donated_while_it_is_being_saved(run, state, config):
    before = jax.tree.map(np.array, state.params)
    donate = jax.jit(partial(jax.tree.map, lambda leaf: leaf * 2), donate_argnums=0)
    with Checkpoints(run / "checkpoints", config) as checkpoints:
        checkpoints.save(state)
        for _ in range(50):
            state = donate(state)
        jax.block_until_ready(state)
    assert_equal(checkpoint.load(run).params, before)


def test_a_model_is_loaded_with_all_it_needs(run, state, tokenizer):
    save(run, state)
    loaded = checkpoint.load(run)
    assert loaded.step == 4
    assert loaded.tokenizer.pieces == tokenizer.pieces
    assert loaded.config.text.vocabulary == len(tokenizer.pieces)
    assert_equal(loaded.params, state.params)


# Orbax leaves reads and writes of other tensors unfinished when one fails; collected, they say so.
leaves_some_unfinished = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@leaves_some_unfinished
def test_the_last_two_are_kept(run, state, config):
    with Checkpoints(run / "checkpoints", config) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state.replace(step=jnp.int32(step)))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["2", "3"]
    # The last one is damaged: the one before it is of use.
    shutil.rmtree(run / "checkpoints" / "3" / "params" / "d")
    (run / "checkpoints" / "3" / "params" / "manifest.ocdbt").unlink()
    assert checkpoint.load(run).step == 2


def test_some_are_kept_for_good(run, state, config):
    config = override(
        config, ["checkpoint_every=2", "checkpoint_keep=1", "checkpoint_keep_every=4"]
    )
    for step in (2, 4, 6, 8, 10):  # each by another process, as it were
        with Checkpoints(run / "checkpoints", config) as checkpoints:
            checkpoints.save(state.replace(step=jnp.int32(step)))
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"4", "8", "10"}
    with pytest.raises(OverrideError, match="checkpoint_keep_every 5 must be a multiple of"):
        override(config, ["checkpoint_keep_every=5"])


def test_no_checkpoint_is_to_be_removed(run, state):
    save(run, state)
    # As earlier releases saved them.
    (run / "checkpoints" / "4" / checksums.NAME).unlink()
    config = run / "checkpoints" / "4" / "config" / "metadata"
    for other in ({"batch": 4, "no_such_field": 1}, {"video": 3}, [1]):
        config.write_text(json.dumps(other))
        with pytest.raises(
            CheckpointError, match=r"checkpoints/4 is from another release"
        ) as raised:
            checkpoint.load(run / "checkpoints" / "4")
        assert "remove" not in str(raised.value)
    vocabulary = run / "checkpoints" / "4" / "vocabulary" / "metadata"
    for damaged in ('{"pieces": 3}', "[]", "{"):
        vocabulary.write_text(damaged)
        with pytest.raises(CheckpointError, match=r"checkpoints/4 cannot be read .*: ") as raised:
            checkpoint.load(run / "checkpoints" / "4")
        assert "remove" not in str(raised.value)
    metadata = run / "checkpoints" / "4" / "params" / "_METADATA"
    metadata.unlink()
    metadata.mkdir()  # what root, too, may not read as a file
    with pytest.raises(
        CheckpointError, match=r"checkpoints/4 cannot be read \(.*Is a dir"
    ) as raised:
        checkpoint.load(run)
    assert "remove" not in str(raised.value)


@leaves_some_unfinished
def test_a_write_error_does_not_advise_to_free_space(run, state, config):
    disk = run / "checkpoints"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk to make read-only: {mounted.stderr.strip()}")
    try:
        save(run, state)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        before = set(threading.enumerate())
        with (
            pytest.raises(CheckpointError, match=r"Read-only file system.*; step 4 is") as raised,
            Checkpoints(run / "checkpoints", config) as checkpoints,
        ):
            checkpoints.save(state.replace(step=jnp.int32(5)))
        assert "is writable, and run" in str(raised.value)
        assert "room" not in str(raised.value)
        for thread in set(threading.enumerate()) - before:  # the program would wait for it
            thread.join(timeout=10)
            assert thread.daemon or not thread.is_alive(), thread
        gc.collect()
    finally:
        subprocess.run(["umount", disk], check=True)


@leaves_some_unfinished
def test_a_full_disk_is_reported_and_costs_no_checkpoint(run, state, config):
    disk = run / "checkpoints"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk to fill: {mounted.stderr.strip()}")
    try:
        config = override(config, ["checkpoint_keep=1"])
        full = rf"checkpoint in {disk} could not be saved \(the disk is full\); step 4 is the last"
        save(run, state)
        (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - 8192))
        with (
            pytest.raises(CheckpointError, match=full),
            Checkpoints(run / "checkpoints", config) as checkpoints,
        ):
            checkpoints.save(state.replace(step=jnp.int32(5)))
        gc.collect()
        (disk / "other").unlink()
        assert checkpoint.load(run).step == 4
        save(run, state.replace(step=jnp.int32(6)))
        assert sorted(path.name for path in disk.iterdir()) == ["4", "6"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_leftovers_of_a_killed_save_are_removed(run, state):
    save(run, state)
    left = run / "checkpoints" / "8.orbax-checkpoint-tmp"
    shutil.copytree(run / "checkpoints" / "4", left)
    assert checkpoint.load(run).step == 4
    assert left.exists()  # reading removes nothing
    save(run, state.replace(step=jnp.int32(5)))
    assert not left.exists()
    assert checkpoint.load(run).step == 5


@pytest.mark.parametrize("made", [False, True])
def test_a_run_without_checkpoint(run, made):
    if made:
        (run / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match=r"run .* has no checkpoint yet"):
        checkpoint.load(run)


def test_a_checkpoint_of_another_model_size(run, state):
    save(run, state)
    config = json.loads((run / "config.json").read_text())
    config["joint_width"] = 24
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError,
        match=r"another model size: tensor project_text.bias is \(256,\), but \(24,\) by",
    ):
        checkpoint.load(run)
    config["joint_width"] = 256
    config["video"] |= {"layers": 2, "grouping_after": [1, 2]}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"tensor video.grouping_2.* is absent, but \("):
        checkpoint.load(run)


def test_a_folder_that_is_no_run(tmp_path, run):
    with pytest.raises(RunError, match=r"is not a training run, it has no config.json"):
        checkpoint.load(tmp_path)
    with pytest.raises(RunError, match=r"config.json is not a training run"):
        checkpoint.load(run / "config.json")
    (run / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config.json is damaged"):
        checkpoint.load(run)
