"""How a step is computed changes nothing of what it computes."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.data.types import Batch
from trainer.distributed.mesh import one_device
from trainer.method.cut_and_paste import splice_at_step
from trainer.method.train_step import clip_keys, init_state, total_loss
from trainer.runs.tensor_shapes import by_name

CONFIG = override(
    PRESETS["tiny"],
    [
        "batch=8",
        "cut_and_paste.pair_group=2",
        "cut_and_paste.from_step=0",
        "video.frames=4",
        "video.resolution=48",
        "video.layers=1",
        "video.grouping_after=1",
        "video.attention_block=10",
        "video.width=64",
        "video.mlp_width=128",
        "text.layers=1",
        "text.width=64",
        "text.mlp_width=128",
        "joint_width=32",
        "loss.learn_temperatures=true",
    ],
)


def batch() -> Batch:
    rng = np.random.default_rng(0)
    clips, nouns, length = CONFIG.batch, CONFIG.input.nouns, CONFIG.text.tokens
    mask = np.arange(length) < rng.integers(3, length, (clips, 1 + nouns, 1))
    return Batch(
        frames=rng.integers(0, 256, (clips, 4, 48, 48, 3), np.uint8),
        caption_ids=rng.integers(0, 500, (clips, length), np.int32),
        caption_mask=mask[:, 0],
        noun_ids=rng.integers(0, 500, (clips, nouns, length), np.int32),
        noun_mask=mask[:, 1:],
        noun_valid=rng.random((clips, nouns)) < 0.7,
        index=np.arange(clips, dtype=np.int32),
    )


@cache
def losses_and_gradients(*settings: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Of one step from the same parameters."""
    config, mesh = override(CONFIG, settings), one_device()
    params = init_state(CONFIG, mesh).params

    @jax.jit
    def of_step(params: Any, given: Batch) -> Any:
        step = jnp.int32(0)
        keys = clip_keys(random.key(0), step, given.index)
        splice = splice_at_step(
            keys, step, config.video.windows, config.cut_and_paste, jnp.int32(0)
        )
        of_params = partial(
            total_loss, batch=given, splice=splice, keys=keys, config=config, mesh=mesh
        )
        return jax.grad(of_params, has_aux=True)(params)

    gradient, parts = of_step(params, batch())
    return (
        {name: float(value) for name, value in parts.items()},
        {name: np.asarray(leaf) for name, leaf in by_name(gradient).items()},
    )


@pytest.mark.parametrize(
    "settings",
    [
        ("compute.remat=matmuls",),
        ("compute.remat=block", "compute.attention=plain", "compute.microbatches=4"),
    ],
    ids=" ".join,
)
def test_the_losses_and_every_gradient_stay_the_same(settings: tuple[str, ...]) -> None:
    (parts, gradients), (same_parts, same) = losses_and_gradients(), losses_and_gradients(*settings)
    assert parts.keys() == same_parts.keys() and gradients.keys() == same.keys()
    for name, value in parts.items():
        assert same_parts[name] == pytest.approx(value, rel=1e-5), name
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(same[name], gradient, atol=1e-5, rtol=1e-4, err_msg=name)


def test_in_bfloat16_losses_and_gradients_are_near_those_of_float32() -> None:
    (parts, gradients), (near_parts, near) = (
        losses_and_gradients(),
        losses_and_gradients("compute.dtype=bfloat16"),
    )
    for name in ("temporal", "grounding", "contrast"):
        assert near_parts[name] == pytest.approx(parts[name], rel=0.02, abs=1e-4), name
    norms = {name: np.linalg.norm(gradient) for name, gradient in gradients.items()}
    compared = 0
    for name, gradient in gradients.items():
        assert near[name].dtype == np.float32, name
        # A bias added to all logits cancels in a softmax, so it has no gradient.
        if norms[name] > 1e-5 * max(norms.values()):
            cosine = np.vdot(gradient, near[name]) / norms[name] / np.linalg.norm(near[name])
            assert cosine > 0.97, name
            compared += 1
    assert compared > 0.85 * len(gradients)
