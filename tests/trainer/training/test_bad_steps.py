import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from trainer.configs.config import Config, SpikeConfig
from trainer.configs.overrides import override
from trainer.distributed.mesh import one_device
from trainer.method.bad_steps import LossStatistics
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import apply_gradients, begin, group_usage
from trainer.training import jsonl_log
from trainer.training.bad_step_report import BadStepError, BadSteps

NAN, INF = float("nan"), float("inf")


def after(losses, spike):
    watch = LossStatistics.begin()
    for loss in losses:
        watch = watch.after(jnp.float32(loss), jnp.bool(False), spike)
    return watch


def is_bad(watch, loss, norm, spike):
    return bool(watch.is_bad(jnp.float32(loss), jnp.float32(norm), spike))


def test_non_finite_steps_are_bad_from_the_first_on():
    values = [(1.0, 1.0), (NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF)]
    found = [is_bad(LossStatistics.begin(), *pair, SpikeConfig()) for pair in values]
    assert found == [False, True, True, True, True]


def test_a_spike_of_the_loss_is_measured_by_its_mean_over_good_steps():
    spike = SpikeConfig(loss_factor=2.0, loss_decay=0.5, from_step=3)
    watch = after([4.0, 2.0, 2.0], spike)
    # Weights 1/8, 1/4, 1/2 of 7/8.
    mean = (4.0 / 8 + 2.0 / 4 + 2.0 / 2) / (7 / 8)
    assert float(watch.mean_loss(spike)) == pytest.approx(mean)
    assert not is_bad(watch, 1.99 * mean, 1.0, spike)
    assert is_bad(watch, 2.01 * mean, 1.0, spike)
    assert not is_bad(after([4.0, 2.0], spike), 100.0, 1.0, spike)  # too few steps

    skipped = watch.after(jnp.float32(NAN), jnp.bool(True), spike)
    assert float(skipped.mean_loss(spike)) == pytest.approx(mean)
    assert (skipped.good, skipped.skipped, skipped.in_a_row) == (3, 1, 1)
    assert skipped.after(jnp.float32(1.0), jnp.bool(False), spike).in_a_row == 0


def test_a_bound_on_the_gradient():
    spike = SpikeConfig(gradient_norm=10.0)
    assert [is_bad(LossStatistics.begin(), 1.0, norm, spike) for norm in (9.9, 10.1)] == [
        False,
        True,
    ]


def test_bad_steps_in_a_row_stop_a_run_that_skips_them(tmp_path):
    config = override(Config(), ["on_bad_step=skip", "skip_in_a_row=1", "spike.loss_factor=2"])
    bad_steps = BadSteps(tmp_path, config, start=0, writes=True)
    for step, in_a_row in ((1, 0), (2, 1), (3, 0), (4, 1)):
        figures = {"bad_in_a_row": in_a_row, "loss": 9.0, "gradient_norm": 1.0, "mean_loss": 3.0}
        figures |= {"state_finite": True}
        bad_steps.check(step, figures, [f"clip-{step}"], checkpoint=None)
    figures |= {"bad_in_a_row": 2, "loss": NAN}
    with pytest.raises(
        BadStepError,
        match=r"loss is nan at step 5 \(step 4 is the last saved checkpoint\).*allows 1 in a row",
    ):
        bad_steps.check(5, figures, ["clip-5"], checkpoint=4)
    records = jsonl_log.read(tmp_path / "bad_steps.jsonl")
    assert [(record["step"], record["clip_ids"]) for record in records] == [
        (2, ["clip-2"]),
        (4, ["clip-4"]),
        (5, ["clip-5"]),
    ]
    assert records[0]["reason"] == "the loss is 9, above spike.loss_factor × its mean 3"
    assert records[2]["loss"] is None

    # A run that resumes from step 3 has not seen later steps.
    BadSteps(tmp_path, config, start=3, writes=True)
    assert [record["step"] for record in jsonl_log.read(tmp_path / "bad_steps.jsonl")] == [2]


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("spoils", ["parameters", "average", "neither"])
def test_a_non_finite_update_is_bad_despite_finite_loss_and_gradient(policy, spoils, tmp_path):
    settings = ["optimizer.warmup_share=0", "optimizer.clip_norm=none", "average_decay=0.9"]
    rate = "3e38" if spoils == "parameters" else "1e-3"
    settings += [f"optimizer.learning_rate={rate}", f"on_bad_step={policy}", "skip_in_a_row=1"]
    config = override(Config(), settings)
    before = begin({"head": {"w": jnp.full(1, 1.0 if spoils == "neither" else -3e38)}}, config)
    if spoils == "average":
        before = dataclasses.replace(before, average={"head": {"w": jnp.full(1, 3e38)}})

    def loss(params):
        value = jnp.sum(params["head"]["w"])
        return value, {"loss": value}

    first = jax.tree.map(jnp.copy, before)
    after, measured = apply_gradients(before, loss, run_scalars(config, 1), config, one_device())
    assert jnp.isfinite(measured["loss"]) and jnp.isfinite(measured["gradient_norm"])
    bad = spoils != "neither"
    assert (bool(measured["state_finite"]), int(measured["bad_in_a_row"])) == (not bad, bad)
    assert int(after.step) == 1
    kept = bool(jnp.array_equal(after.params["head"]["w"], first.params["head"]["w"]))
    if spoils != "average":
        assert kept == (bad and policy == "skip")
    steps = BadSteps(tmp_path, config, start=0, writes=True)
    if policy == "skip" or not bad:
        steps.check(1, measured, ["clip"], checkpoint=None)
        return
    with pytest.raises(BadStepError, match=r"parameters or optimizer state non-finite at st"):
        steps.check(1, measured, ["clip"], checkpoint=None)


def test_a_step_divides_nothing_by_nothing():
    """JAX_DEBUG_NANS=1 stops at the first NaN, so svilm must not produce one itself."""
    config = override(Config(), ["optimizer.warmup_share=0", "average_decay=0.9"])

    def loss(params):
        value = jnp.sum(jnp.square(params["head"]["w"]))
        return value, {"loss": value}

    with jax.debug_nans(True):
        state = begin({"head": {"w": jnp.ones(3)}}, config)
        step = jax.jit(partial(apply_gradients, loss=loss, config=config, mesh=one_device()))
        _, measured = step(state, scalars=run_scalars(config, 2))
        assert float(measured["mean_loss"]) == 0.0
        for groups in (1, 2):
            usage = jax.jit(group_usage)(jnp.full((2, groups), 1.0 / groups))
            assert float(usage["group_entropy"]) == pytest.approx(groups - 1)
