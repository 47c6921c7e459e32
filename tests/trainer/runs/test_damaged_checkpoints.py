"""Damage to any file of a checkpoint is detected, and the previous checkpoint is used."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.configs.overrides import override
from trainer.distributed.mesh import one_device
from trainer.method.train_step import init_state, state_shapes
from trainer.runs import checkpoint, checksums, run_folder
from trainer.runs.checkpoint import CheckpointError, Checkpoints

# Orbax leaves reads of other tensors unfinished when one fails; collected, they say so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def config(untrained_run):
    return override(run_folder.read(untrained_run)[0], ["average_decay=0.9"])


@pytest.fixture(scope="module")
def state(config):
    """A state whose numbers are all different."""
    state = jax.eval_shape(lambda: init_state(config, one_device()))
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(rng.integers(1, 1000, leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(tree, leaves)


@pytest.fixture(scope="module")
def saved(untrained_run, config, state, tmp_path_factory):
    """A run with checkpoints of steps 1 and 2. Tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / "saved"
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    shutil.copy(untrained_run / "vocab.txt", run)
    with Checkpoints(run / "checkpoints", config) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state.replace(step=jnp.int32(step)))
    return run


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def files_of(folder):
    """Return all files of the saved state, and the checksums."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in files if path.parent != folder or path.name == checksums.NAME)


def restored(run, config):
    shapes = state_shapes(config, one_device())
    with Checkpoints(run / "checkpoints", config) as checkpoints:
        found = checkpoints.restore_newest(shapes)
    assert found is not None
    return found


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_save_is_restored(run, config, state, capfd):
    assert restored(run, config).step == 2
    assert_equal(restored(run, config).params, state.params)
    assert capfd.readouterr().err == ""
    known = json.loads((run / "checkpoints" / "2" / checksums.NAME).read_text())["files"]
    folder = run / "checkpoints" / "2"
    assert {str(path.relative_to(folder)) for path in files_of(folder)} - {checksums.NAME} == {
        *known
    }
    assert {name.partition("/")[0] for name in known} == {
        *("params", "average", "optimiser", "watch", "config", "vocabulary")
    }


def damaged(path, how):
    size = path.stat().st_size
    if how == "flip":
        flip(path, 8 * (size // 2) + 3)
    elif how == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "zero":
        path.write_bytes(bytes(size))
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flip", "truncate", "zero", "delete"])
def test_damage_to_any_file_is_noticed(saved, tmp_path, how):
    names = [path.relative_to(saved) for path in files_of(saved / "checkpoints" / "2")]
    assert len(names) > 20
    folder = shutil.copytree(saved / "checkpoints" / "2", tmp_path / "2")
    for name in names:
        path = tmp_path / name.relative_to("checkpoints")
        whole = path.read_bytes()
        if not whole and how != "delete":
            continue
        damaged(path, how)
        if name.name != checksums.NAME:
            inside = name.relative_to("checkpoints/2").as_posix()
            assert (checksums.find_damage(folder) or "").startswith(inside)
        elif how == "delete":
            assert not checksums.exist(folder)
        else:
            assert checksums.find_damage(folder)
        path.write_bytes(whole)
    assert checksums.find_damage(folder) is None


@pytest.mark.parametrize("how", ["flip", "truncate", "zero", "delete"])
def test_the_checkpoint_before_a_damaged_one_is_used(run, config, state, capfd, how):
    (first, *_) = sorted((run / "checkpoints" / "2" / "params" / "d").iterdir())
    damaged(first, how)
    found = restored(run, config)
    told = capfd.readouterr().err
    assert found.step == 1
    assert_equal(found.params, state.params)
    assert_equal(found.optimizer, state.optimizer)
    assert f"checkpoints/2 is unusable: params/d/{first.name} " in told
    assert "resuming from step 1" in told
    assert not (run / "checkpoints" / "2").exists()
    assert (run / "checkpoints" / "2.damaged" / checksums.NAME).exists()


def test_a_checkpoint_whose_checksums_were_lost_is_used_and_named(run, config, capfd):
    (run / "checkpoints" / "2" / checksums.NAME).unlink()
    assert restored(run, config).step == 2
    assert (
        "checkpoints/2 has no checksums.json: damage to it would go unnoticed"
        in capfd.readouterr().err
    )


@settings(max_examples=60)
@given(data=st.data())
def test_every_flipped_bit_is_noticed(saved, data):
    names = [path.relative_to(saved) for path in files_of(saved / "checkpoints" / "2")]
    name = data.draw(st.sampled_from(names))
    folder = saved / "checkpoints" / "2"
    path, whole = saved / name, (saved / name).read_bytes()
    if not whole:
        return
    try:
        flip(path, data.draw(st.integers(0, 8 * len(whole) - 1)))
        why = checksums.find_damage(folder)
        assert why, name
        part = path.relative_to(folder).parts[0]
        if part != checksums.NAME:
            assert str(path.relative_to(folder)) in why
            assert checksums.find_damage(folder, {part}) == why
            assert checksums.find_damage(folder, {"config", "watch"} - {part}) is None
    finally:
        path.write_bytes(whole)


def test_every_flipped_bit_of_the_checksums_is_noticed(saved):
    folder = saved / "checkpoints" / "2"
    path = folder / checksums.NAME
    whole = path.read_bytes()
    try:
        for bit in range(8 * whole.index(b"files")):  # where the algorithm is named
            flip(path, bit)
            assert checksums.find_damage(folder) == "checksums.json was edited or damaged", bit
            path.write_bytes(whole)
    finally:
        path.write_bytes(whole)


def test_a_model_is_loaded_from_the_checkpoint_before_and_nothing_is_moved(run, capfd, state):
    (damaged, *_) = (run / "checkpoints" / "2" / "average").glob("d/*")
    flip(damaged, 100)
    loaded = checkpoint.load(run)
    assert (loaded.step, loaded.averaged) == (1, True)
    assert_equal(loaded.params, state.average)
    assert "checkpoints/2 is unusable: average/d/" in capfd.readouterr().err
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1", "2"]
    # Nothing else is used where one is named.
    with pytest.raises(CheckpointError, match=r"checkpoints/2 is damaged: average/d/.* CRC-32C"):
        checkpoint.load(run / "checkpoints" / "2")
    # What is not read need not be whole.
    flip(damaged, 100)
    (other, *_) = (run / "checkpoints" / "2" / "optimiser").glob("d/*")
    flip(other, 100)
    assert checkpoint.load(run).step == 2


def test_the_step_of_a_damaged_checkpoint_can_be_saved_again(run, config, state):
    for times in (1, 2):
        flip(run / "checkpoints" / "2" / "watch" / "_METADATA", 9)
        shapes = state_shapes(config, one_device())
        with Checkpoints(run / "checkpoints", config) as checkpoints:
            found = checkpoints.restore_newest(shapes)
            assert found is not None and found.step == 1
            assert checkpoints.newest() == checkpoints.latest() == 1
            checkpoints.save(state.replace(step=jnp.int32(2)))
        assert checkpoint.load(run).step == 2
        aside = [path.name for path in (run / "checkpoints").glob("2.*")]
        assert sorted(aside) == ["2.damaged", "2.damaged-2"][:times]


def test_nothing_is_removed_where_all_are_damaged(run, config):
    flip(run / "checkpoints" / "1" / "watch" / "_METADATA", 9)
    (run / "checkpoints" / "2" / "vocabulary" / "metadata").unlink()
    before = sorted(run.rglob("*"))
    wrong = r"no checkpoint in .* \(1: watch/_METADATA has CRC.*; 2: vocabulary/metadata is missing"
    with pytest.raises(CheckpointError, match=wrong):
        restored(run, config)
    assert sorted(run.rglob("*")) == before
    flip(run / "checkpoints" / "1" / "params" / "_METADATA", 9)
    flip(run / "checkpoints" / "2" / "params" / "_METADATA", 9)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*; nothing was removed"):
        checkpoint.load(run)


def test_a_checkpoint_of_an_earlier_release_is_used_and_its_damage_falls_back(
    run, config, state, capfd
):
    for step in "12":
        (run / "checkpoints" / step / checksums.NAME).unlink()
    assert restored(run, config).step == 2
    assert "checkpoints/2 has no checksums.json" in capfd.readouterr().err
    shutil.rmtree(run / "checkpoints" / "2" / "params" / "d")
    assert checkpoint.load(run).step == 1
    assert restored(run, config).step == 1
    told = capfd.readouterr().err
    assert "checkpoints/2 cannot be read (ValueError: " in told
    assert "has no checksums.json to show whether its files are damaged" in told
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1", "2.damaged"]


def test_a_fault_of_the_program_is_not_taken_for_damage(run, config):
    with Checkpoints(run / "checkpoints") as checkpoints:
        assert checkpoints.newest() == 2
        for fault in (TypeError, AttributeError, KeyError):
            with pytest.raises(fault, match="ours"), checkpoints._readable(2):
                raise fault("ours")


def test_orbax_internal_files_are_not_needed(run, config, state):
    for path in (run / "checkpoints" / "2").iterdir():
        if path.is_file() and path.name != checksums.NAME:
            path.write_bytes(bytes(path.stat().st_size))
    assert restored(run, config).step == 2
    assert_equal(checkpoint.load(run).params, state.average)
