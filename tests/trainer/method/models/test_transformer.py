"""What a layer keeps for its backward pass, and that what is computed again is the same."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from trainer.configs.config import ComputeConfig, VideoConfig
from trainer.method.models.transformer import Remat, rematerialised
from trainer.method.models.video import Block, VideoEncoder

SIZES = VideoConfig(width=32, heads=2, mlp_width=128, layers=1, grouping_after=(1,))
CLIPS, TOKENS = 3, 7


def layer(remat: Remat) -> tuple[Any, Any, jax.Array]:
    """A layer's function of parameters and tokens, and both."""
    block = rematerialised(Block, remat)(SIZES)
    tokens = random.normal(random.key(0), (CLIPS, TOKENS, SIZES.width))
    params = block.init(random.key(1), tokens)
    return block.apply, params, tokens


@pytest.mark.parametrize(
    ("remat", "widths"), [("block", 1), ("attention", 2), ("matmuls", 10)], ids=str
)
def test_a_layer_keeps_no_more_than_its_configuration_says(remat: Remat, widths: int) -> None:
    """Counted in widths a token; parameters are there anyway."""
    apply, params, tokens = layer(remat)
    backward = jax.eval_shape(lambda *inputs: jax.vjp(apply, *inputs)[1], params, tokens)
    shapes = [leaf.shape for leaf in jax.tree.leaves(backward)]
    kept = sum(math.prod(shape) for shape in shapes if shape[:2] == (CLIPS, TOKENS))
    assert kept == widths * CLIPS * TOKENS * SIZES.width
    assert len(shapes) <= len(jax.tree.leaves(params)) + widths


def test_gradients_are_equal_if_attention_outputs_are_saved() -> None:
    def gradients(remat: Remat) -> Any:
        apply, params, tokens = layer(remat)

        def score(*inputs: Any) -> jax.Array:
            return jnp.sum(jnp.sin(apply(*inputs)))

        return jax.jit(jax.grad(score, (0, 1)))(params, tokens)

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        gradients("attention"),
        gradients("none"),
    )


def test_gradients_of_shared_parameters_are_summed_in_float32() -> None:
    """Three times a clip's gradient, of bfloat16, is often no number of bfloat16."""
    sizes = dataclasses.replace(
        SIZES, frames=4, resolution=32, group_tokens=4, grouping_out="xavier"
    )
    encoder = VideoEncoder(sizes, ComputeConfig(dtype="bfloat16"))
    clip = random.uniform(random.key(0), (1, 4, 32, 32, 3), minval=-1.0)
    clips = jnp.repeat(clip, CLIPS, axis=0)
    params = jax.jit(encoder.init)(random.key(1), clips, None)

    def loss(params: Any, weights: jax.Array) -> jax.Array:
        features: Any = encoder.apply(params, clips, None)
        wide = [x.astype(jnp.float32).reshape(CLIPS, -1) for x in features[:2]]
        scores = [jnp.sin(3 * x) for x in wide]
        return weights @ jnp.sum(jnp.concatenate(scores, axis=1), axis=1)

    gradient = jax.jit(jax.grad(loss))
    of_one = gradient(params, jnp.eye(CLIPS)[0])
    of_all = jax.tree.leaves(gradient(params, jnp.ones(CLIPS)))
    for (path, one), summed in zip(
        jax.tree_util.tree_leaves_with_path(of_one), of_all, strict=True
    ):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if not name.endswith("kernel"):  # whose sums are matrix products
            largest = float(jnp.abs(one).max())
            np.testing.assert_allclose(
                summed, CLIPS * one, rtol=1e-5, atol=1e-5 * largest, err_msg=name
            )
