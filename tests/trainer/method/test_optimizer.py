"""The optimizer: what each parameter's update looks like after one step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trainer.configs.config import Config, OptimizerConfig
from trainer.distributed.mesh import one_device
from trainer.method.optimizer import learning_rate, make_optimizer
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import init_state

RATE = 0.01


def first_update(name, params, *, weight_decay=0.0):
    """The update of every parameter from random gradients, without warm-up or clipping."""
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), params)
    config = OptimizerConfig(
        name=name,
        learning_rate=RATE,
        weight_decay=weight_decay,
        warmup_share=0.0,
        clip_norm=1e9,
    )
    optimizer = make_optimizer(config, optax.constant_schedule(config.learning_rate))
    with jax.numpy_dtype_promotion("standard"):
        update, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    return update


@pytest.fixture
def params(small_config):
    return init_state(small_config, one_device()).params


def test_muon_makes_the_updates_of_dense_layers_orthogonal(params):
    update = first_update("muon", params)
    layer = update["video"]["layer_1"]
    width = layer["mlp"]["in"]["kernel"].shape[0]
    for kernel in (
        layer["mlp"]["in"]["kernel"],
        layer["attention"]["query"]["kernel"].reshape(width, -1),
        layer["attention"]["out"]["kernel"].reshape(-1, width),
        update["project_text"]["kernel"],
    ):
        singular = np.linalg.svd(kernel, compute_uv=False)
        # Of a random square matrix these differ twelvefold.
        assert singular[0] < 3 * np.quantile(singular, 0.1)
        rms = np.sqrt(np.mean(np.square(kernel)))
        assert 0.1 * RATE < rms < 0.3 * RATE  # AdamW's, as measured in training


def test_muon_leaves_embeddings_norms_and_biases_to_adamw(params):
    muon, adamw = first_update("muon", params), first_update("adamw", params)
    for path in (
        ("video", "embed", "kernel"),
        ("video", "positions"),
        ("video", "group_tokens"),
        ("video", "layer_1", "norm_mlp", "scale"),
        ("video", "layer_1", "mlp", "in", "bias"),
        ("text", "words"),
    ):
        of_muon, of_adamw = muon, adamw
        for key in path:
            of_muon, of_adamw = of_muon[key], of_adamw[key]
        # Muon's AdamW looks ahead (Nesterov), which makes a first step 1.47 times as long.
        np.testing.assert_allclose(of_muon, (0.9 * 0.1 / 0.19 + 1) * of_adamw, rtol=1e-3)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_kernels_decay(params, name):
    params = jax.tree.map(lambda leaf: leaf + 1.0, params)  # biases start at zero
    without = first_update(name, params)
    decayed = first_update(name, params, weight_decay=0.5)

    def check(path, without, decayed, leaf):
        shrunk = RATE * 0.5 * leaf if path[-1].key == "kernel" else np.zeros_like(leaf)
        if path[-2].key == "embed" and name == "muon":
            shrunk = np.zeros_like(leaf)  # AdamW's, which under Muon decays nothing
        np.testing.assert_allclose(without - decayed, shrunk, atol=1e-6, err_msg=str(path))

    jax.tree_util.tree_map_with_path(check, without, decayed, params)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_few_steps_have_a_schedule_whatever_share_warms_up(steps):
    config = Config(optimizer=OptimizerConfig(learning_rate=RATE, warmup_share=0.9))
    schedule = learning_rate(config.optimizer, run_scalars(config, steps))
    rates = [float(schedule(jnp.int32(step))) for step in range(steps + 1)]
    assert max(rates) == pytest.approx(RATE)
    assert rates[-1] == 0


@pytest.mark.parametrize("peak", [0.1, 0.0123])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.35])
@pytest.mark.parametrize("steps", [1, 18, 520, 77_777])
def test_the_schedule_is_optax_to_the_bit(peak, share, steps):
    """Runs that began with a step compiled for their length continue to the same bit."""
    config = Config(optimizer=OptimizerConfig(learning_rate=peak, warmup_share=share))
    warmup = min(round(share * steps), steps - 1)
    counts = jnp.arange(0, steps + 2, max(steps // 500, 1), dtype=jnp.int32)
    with jax.numpy_dtype_promotion("standard"):
        reference = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)
        expected = jax.jit(jax.vmap(reference))(counts)

    def rates(scalars, counts):
        return jax.vmap(learning_rate(config.optimizer, scalars))(counts)

    np.testing.assert_array_equal(jax.jit(rates)(run_scalars(config, steps), counts), expected)


def test_without_a_norm_to_clip_to_gradients_stay_as_they_are():
    params = {"kernel": np.zeros(4, np.float32)}
    gradient = {"kernel": np.full(4, 100, np.float32)}
    for clip_norm, norm in ((None, 200.0), (1.0, 1.0)):
        config = OptimizerConfig(
            learning_rate=1.0, momentum=0.0, warmup_share=0.0, clip_norm=clip_norm
        )
        optimizer = make_optimizer(config, optax.constant_schedule(config.learning_rate))
        with jax.numpy_dtype_promotion("standard"):
            update, _ = optimizer.update(gradient, optimizer.init(params), params)
        assert float(optax.tree.norm(update)) == pytest.approx(norm, rel=1e-6)
