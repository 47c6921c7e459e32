import jax.numpy as jnp
import pytest

from trainer import step_lines
from trainer.bad_steps import BadStepError, BadSteps, Watch
from trainer.configs.config import Config, SpikeConfig
from trainer.configs.overrides import override

NAN, INF = float("nan"), float("inf")


def after(losses, spike):
    watch = Watch.begin()
    for loss in losses:
        watch = watch.after(jnp.float32(loss), jnp.bool(False), spike)
    return watch


def is_bad(watch, loss, norm, spike):
    return bool(watch.is_bad(jnp.float32(loss), jnp.float32(norm), spike))


def test_what_is_not_finite_is_bad_from_the_first_step_on():
    values = [(1.0, 1.0), (NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF)]
    found = [is_bad(Watch.begin(), *pair, SpikeConfig()) for pair in values]
    assert found == [False, True, True, True, True]


def test_a_spike_of_the_loss_is_measured_by_its_mean_over_good_steps():
    spike = SpikeConfig(loss_factor=2.0, loss_decay=0.5, from_step=3)
    watch = after([4.0, 2.0, 2.0], spike)
    # Weights 1/8, 1/4, 1/2 of 7/8.
    mean = (4.0 / 8 + 2.0 / 4 + 2.0 / 2) / (7 / 8)
    assert float(watch.mean_loss(spike)) == pytest.approx(mean)
    assert not is_bad(watch, 1.99 * mean, 1.0, spike)
    assert is_bad(watch, 2.01 * mean, 1.0, spike)
    assert not is_bad(after([4.0, 2.0], spike), 100.0, 1.0, spike)  # too early to tell

    skipped = watch.after(jnp.float32(NAN), jnp.bool(True), spike)
    assert float(skipped.mean_loss(spike)) == pytest.approx(mean)
    assert (skipped.good, skipped.skipped, skipped.in_a_row) == (3, 1, 1)
    assert skipped.after(jnp.float32(1.0), jnp.bool(False), spike).in_a_row == 0


def test_a_bound_on_the_gradient():
    spike = SpikeConfig(gradient_norm=10.0)
    assert [is_bad(Watch.begin(), 1.0, norm, spike) for norm in (9.9, 10.1)] == [False, True]


def test_bad_steps_in_a_row_stop_a_run_that_skips_them(tmp_path):
    config = override(Config(), ["on_bad_step=skip", "skip_in_a_row=1", "spike.loss_factor=2"])
    bad_steps = BadSteps(tmp_path, config, start=0, writes=True)
    for step, in_a_row in ((1, 0), (2, 1), (3, 0), (4, 1)):
        figures = {"bad_in_a_row": in_a_row, "loss": 9.0, "gradient_norm": 1.0, "mean_loss": 3.0}
        bad_steps.check(step, figures, [f"clip-{step}"], checkpoint=None)
    figures |= {"bad_in_a_row": 2, "loss": NAN}
    with pytest.raises(
        BadStepError, match=r"loss is nan at step 5 \(step 4 is kept\).*there were 2 in a row"
    ):
        bad_steps.check(5, figures, ["clip-5"], checkpoint=4)
    records = step_lines.read(tmp_path / "bad_steps.jsonl")
    assert [(record["step"], record["clip_ids"]) for record in records] == [
        (2, ["clip-2"]),
        (4, ["clip-4"]),
        (5, ["clip-5"]),
    ]
    assert records[0]["reason"] == "the loss is 9, above spike.loss_factor × its mean 3"
    assert records[2]["loss"] is None

    # A run that goes on from step 3 has not seen the later ones.
    BadSteps(tmp_path, config, start=3, writes=True)
    assert [record["step"] for record in step_lines.read(tmp_path / "bad_steps.jsonl")] == [2]
