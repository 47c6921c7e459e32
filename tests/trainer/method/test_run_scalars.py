"""Runs that differ in their seed, length or bookkeeping share one compiled step."""

import dataclasses

import jax
import numpy as np
import pytest

from trainer.configs.config import Config
from trainer.configs.overrides import override
from trainer.distributed.mesh import one_device
from trainer.method.run_scalars import compiled_config, run_scalars
from trainer.method.train_step import batch_shapes, init_state, state_shapes, train_step

# Another value for every field that `compiled_config` resets.
OTHER_RUN = (
    *("epochs=3", "max_steps=7", "seed=9", "log_every=3", "skip_in_a_row=2"),
    *("checkpoint_every=5", "checkpoint_keep=7", "checkpoint_keep_every=10"),
    *("evaluate_every=4", "evaluate_clips=8", "input.weights=1,2", "input.on_corrupt=skip"),
    *("input.where=score > 0", "input.weights_column=score"),
    *("cut_and_paste.from_share=0.5", "optimizer.warmup_share=0.3"),
)


def traced(config, steps):
    mesh = one_device()
    return train_step.trace(
        state_shapes(config, mesh),
        batch_shapes(config, mesh),
        run_scalars(config, steps),
        config=config,
        mesh=mesh,
    )


def test_the_reset_fields_change_no_compiled_step(noisy_config):
    other = override(noisy_config, OTHER_RUN)
    reset = {
        name
        for name, value in dataclasses.asdict(other).items()
        if value != dataclasses.asdict(compiled_config(other))[name]
    }
    assert reset >= {"epochs", "max_steps", "seed", "log_every", "input", "optimizer"}
    assert compiled_config(other) == compiled_config(noisy_config)
    # Both are traced with all their fields, so the programs show whether a field is read.
    assert str(traced(other, 7).jaxpr) == str(traced(noisy_config, 18).jaxpr)


@pytest.mark.parametrize("setting", ["joint_width=32", "average_decay=0.5", "input.hue=0.1"])
def test_a_field_that_a_step_reads_is_kept(noisy_config, setting):
    assert compiled_config(override(noisy_config, [setting])) != compiled_config(noisy_config)


def test_seeds_share_an_initialization(noisy_config, caplog):
    def words(seed):
        config = dataclasses.replace(noisy_config, seed=seed)
        return np.asarray(init_state(config, one_device()).params["text"]["words"])

    def compiled():
        return [line for line in caplog.messages if line.startswith("Compiling jit(_init_state)")]

    with jax.log_compiles():
        wider = dataclasses.replace(noisy_config, joint_width=noisy_config.joint_width + 2)
        init_state(wider, one_device())
        assert len(compiled()) == 1, caplog.messages
        caplog.clear()
        first = words(1)
        caplog.clear()
        second = words(2)
        assert not compiled()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(words(1), first)


def test_the_seed_is_the_key_of_jax():
    assert jax.random.key_data(run_scalars(Config(seed=5), 10).key()).tolist() == [0, 5]
