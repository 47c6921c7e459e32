"""The whole model on toy sizes: shapes, invariances, and gradients by finite differences."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from trainer.configs.config import Config, CutAndPasteConfig, TextConfig, VideoConfig
from trainer.method import losses
from trainer.method.cut_and_paste import draw_splice, label_weights
from trainer.method.models.svilm import SViLM
from trainer.method.models.video import tubelets

CONFIG = Config(
    video=VideoConfig(
        frames=8,
        resolution=16,
        patch=8,
        width=12,
        layers=2,
        heads=2,
        mlp_width=16,
        group_tokens=3,
        grouping_after=(1, 2),
    ),
    text=TextConfig(
        vocabulary=11, tokens=5, positions=6, width=12, layers=1, heads=2, mlp_width=16
    ),
    joint_width=6,
    batch=4,
)
B = 4


# Compiled whole: operation by operation, each of some hundred is compiled alone.
@partial(jax.jit, static_argnames="method")
def apply(params: Any, *inputs: Any, **method: Any) -> Any:
    return SViLM(CONFIG).apply({"params": params}, *inputs, **method)


def drawn(seed: int, like: Any) -> Any:
    """Normal numbers of the shapes and types of `like`."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), like)


@pytest.fixture(scope="module")
def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    pixels = random.uniform(random.key(0), (B, 8, 16, 16, 3), minval=-1.0)
    ids = random.randint(random.key(1), (B, 5), 1, 11)
    mask = jnp.arange(5)[None, :] < jnp.array([5, 4, 3, 5])[:, None]
    return pixels, ids, mask


@pytest.fixture(scope="module")
def params(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> dict:
    variables: Any = jax.jit(SViLM(CONFIG).init)(random.key(2), *inputs)
    params = jax.tree.map(np.asarray, variables["params"])
    # Away from the zeros that some start at, so that every path carries something.
    return jax.tree.map(lambda leaf, by: leaf + np.float32(0.2) * by, params, drawn(3, params))


def test_shapes(params: dict, inputs: tuple[jax.Array, jax.Array, jax.Array]) -> None:
    video, text = apply(params, *inputs)
    assert video.clip.shape == (B, 6) and video.groups.shape == (B, 3, 6)
    assert video.features.tokens.shape == (B, 4, 4, 12)
    assert video.features.assignment.soft.shape == (B, 3, 16)
    assert text.shape == (B, 6)
    for unit in (video.clip, video.groups, text):
        np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, rtol=1e-5)


def test_padding_does_not_reach_the_text(
    params: dict, inputs: tuple[jax.Array, jax.Array, jax.Array]
) -> None:
    _, ids, mask = inputs

    def encode(ids: jax.Array) -> jax.Array:
        return apply(params, ids, mask, method="encode_text")

    np.testing.assert_allclose(encode(ids), encode(jnp.where(mask, ids, 7)), atol=1e-6)


def test_a_clip_does_not_see_the_others(
    params: dict, inputs: tuple[jax.Array, jax.Array, jax.Array]
) -> None:
    keys = random.split(random.key(5), B)

    def encode(pixels: jax.Array, keys: jax.Array) -> jax.Array:
        return apply(params, pixels, keys, method="encode_video").clip

    whole = encode(inputs[0], keys)
    np.testing.assert_allclose(encode(inputs[0][1:3], keys[1:3]), whole[1:3], atol=1e-5)


def test_tubelets_are_a_3d_convolution() -> None:
    pixels = random.normal(random.key(0), (2, 4, 16, 24, 3))
    kernel = random.normal(random.key(1), (2, 8, 8, 3, 5))
    convolved = jax.lax.conv_general_dilated(
        pixels, kernel, (2, 8, 8), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    ours = tubelets(pixels, 2, 8) @ kernel.reshape(-1, 5)
    np.testing.assert_allclose(ours, convolved.reshape(2, 2, 6, 5), rtol=1e-4, atol=1e-4)


def test_gradient_equals_finite_differences_with_assignments_held_fixed(
    params: dict, inputs: tuple[jax.Array, jax.Array, jax.Array]
) -> None:
    """All three losses through both encoders, in float64.

    Without Gumbel noise an assignment is an argmax: constant around almost every point, and
    without gradient. So the hard assignments are held fixed on both sides.
    """
    # Flax promotes its norms' float64 to "at least float32", which strict promotion refuses.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        pixels, ids, mask = inputs
        keys = random.split(random.key(6), B)
        splice = draw_splice(keys, 4, CutAndPasteConfig(pair_group=4))
        weights = label_weights(splice._replace(share=splice.share.astype(jnp.float64)))
        valid = jnp.ones((B, 2), bool)

        @jax.jit
        def loss(params: dict) -> jax.Array:
            video, text = apply(params, jnp.asarray(pixels, jnp.float64), ids, mask)
            nouns = jnp.stack([text, text[::-1]], axis=1)
            grounding = losses.grounding_similarity(video.groups, nouns, valid, 0.3, 2)
            captions = jnp.ones(B, bool)
            return jnp.mean(
                losses.temporal_grouping(video.features.tokens, splice.mask, 0.3)
                + losses.alignment(grounding, weights, 0.3, captions)
                + losses.alignment(video.clip @ text.T, weights, 0.3, captions)
            )

        gradient = jax.jit(jax.grad(loss))(wide)
        for number in range(3):
            direction = drawn(7 + number, wide)

            def at(step: float, direction: dict = direction) -> float:
                moved = jax.tree.map(lambda p, d: p + step * d, wide, direction)
                return float(loss(moved))

            numeric = (at(1e-6) - at(-1e-6)) / 2e-6
            products = jax.tree.map(np.vdot, gradient, direction)
            analytic = float(sum(jax.tree.leaves(products)))
            assert abs(numeric - analytic) < 1e-6 * max(1.0, abs(numeric))
