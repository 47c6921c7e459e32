"""The learning rates of pre-trained parts, by their effect on the parameters' updates."""

import dataclasses
import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trainer.configs.config import Config
from trainer.configs.overrides import OverrideError, override
from trainer.distributed.mesh import one_device
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import apply_gradients, begin
from trainer.runs.tensor_shapes import by_name

NEW = ("group_tokens", "grouping_2", "norm_groups", "project_video")
SIZES = {"video": (2, ("embed", "positions", "prefix_tokens")), "text": (3, ("words", "norm"))}


def parameters():
    rng = np.random.default_rng(0)

    def weights():
        kernel = jnp.asarray(rng.standard_normal((3, 3)), jnp.float32)
        return {"out": {"kernel": kernel}}

    params: dict[str, Any] = {"project_video": weights()}
    for encoder, (layers, embeddings) in SIZES.items():
        params[encoder] = {name: weights() for name in embeddings}
        params[encoder] |= {f"layer_{layer}": weights() for layer in range(1, layers + 1)}
    params["video"] |= {name: weights() for name in ("norm", *NEW[:3])}
    return params


def changes(*settings, steps=1, name="sgd"):
    """The last of some updates of each part, and the gradient's norm, for the loss ½ Σ p²."""
    common = [f"optimizer.name={name}", "optimizer.warmup_share=0", "optimizer.clip_norm=none"]
    config = override(Config(), [*common, "optimizer.learning_rate=0.01", *settings])

    def loss(params):
        total = optax.tree.norm(params, squared=True) / 2
        return total, {"loss": total}

    state = begin(parameters(), config)
    for _ in range(steps):
        before = by_name(state.params)
        state, metrics = apply_gradients(
            state, loss, run_scalars(config, 100), config, one_device()
        )
    after = by_name(state.params)
    update = {
        key.removesuffix(".out.kernel"): np.asarray(after[key]) - before[key] for key in after
    }
    return update, float(metrics["gradient_norm"])


def ratios(update, usual):
    """The ratio of two sets of updates, equal in all values of a part."""
    found = {}
    for name, values in update.items():
        ratio = values / usual[name]
        np.testing.assert_allclose(ratio, ratio.mean(), atol=0.02)
        found[name] = round(float(ratio.mean()), 2)
    return found


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_updates_shrink_layer_by_layer_toward_the_input(name):
    usual, _ = changes(name=name)
    found = ratios(
        changes(
            "optimizer.video_rates.layer_decay=0.5",
            "optimizer.text_rates.layer_decay=0.5",
            "optimizer.text_rates.factor=2",
            name=name,
        )[0],
        usual,
    )
    assert found == {
        "project_video": 1.0,
        **{f"video.{part}": 0.25 for part in ("embed", "positions", "prefix_tokens")},
        **{"video.layer_1": 0.5, "video.layer_2": 1.0, "video.norm": 1.0},
        **{f"video.{part}": 1.0 for part in NEW[:3]},
        **{"text.words": 0.25, "text.norm": 0.25},
        **{"text.layer_1": 0.5, "text.layer_2": 1.0, "text.layer_3": 2.0},
    }


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_locked_encoder_stays_to_the_bit_and_counts_in_no_norm(name):
    _, norm = changes(name=name)
    found, _ = changes(
        "optimizer.video_rates.factor=0", "optimizer.weight_decay=0.1", name=name, steps=2
    )
    for part, values in found.items():
        moves = not part.startswith("video.") or part.removeprefix("video.") in NEW
        assert np.any(values != 0) == moves, part
    _, once = changes("optimizer.video_rates.factor=0", name=name)
    squares = {part: np.sum(np.square(leaf)) for part, leaf in by_name(parameters()).items()}
    locked = sum(
        square
        for part, square in squares.items()
        if part.startswith("video.") and part.split(".")[1] not in NEW
    )
    assert once**2 == pytest.approx(norm**2 - locked, rel=1e-5)


def test_pre_trained_parts_wait_for_new_ones():
    settings = ("optimizer.video_rates.frozen_steps=2", "optimizer.text_rates.factor=0.5")
    for steps, waits in ((1, True), (2, True), (3, False)):
        found, _ = changes(*settings, steps=steps)
        for part, values in found.items():
            frozen = waits and part.startswith("video.") and part.split(".")[1] not in NEW
            assert np.any(values != 0) != frozen, part


def test_defaults_change_no_update():
    usual, _ = changes(steps=2)
    found, _ = changes("optimizer.video_rates.factor=1", steps=2)
    for part, values in found.items():
        np.testing.assert_array_equal(values, usual[part])


@pytest.mark.parametrize(
    "setting",
    ["factor=-1", "layer_decay=0", "layer_decay=1.1", "frozen_steps=-1"],
)
def test_rates_out_of_range_are_refused(setting):
    with pytest.raises(OverrideError, match=setting.partition("=")[0]):
        override(Config(), [f"optimizer.text_rates.{setting}"])


def test_the_configuration_of_an_earlier_release_has_default_rates():
    values = dataclasses.asdict(Config())
    for name in ("video_rates", "text_rates"):
        del values["optimizer"][name]
    for name in ("prefix_tokens", "norm_before", "inflation"):
        del values["video"][name]
    assert Config.from_json(json.dumps(values)) == Config()
