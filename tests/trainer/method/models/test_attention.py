"""The four ways to attend give one answer, forwards and backwards."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from trainer.configs.config import ComputeConfig, VideoConfig
from trainer.method.models.attention import (
    attend,
    attend_by_blocks,
    attend_on_tpu,
    attention,
    choose,
)

# Not a multiple of the kernels' 128, so that there is padding to mask.
SHAPE = (2, 150, 2, 16)


def heads(dtype: Any = jnp.float32) -> list[jax.Array]:
    return [random.normal(key, SHAPE).astype(dtype) for key in random.split(random.key(0), 3)]


def answer_and_gradients(attend: Any, inputs: list[jax.Array]) -> list[np.ndarray]:
    direction = random.normal(random.key(1), SHAPE)

    def score(*inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        attended = attend(*inputs)
        return jnp.sum(attended.astype(jnp.float32) * direction), attended

    gradients, attended = jax.jit(jax.grad(score, (0, 1, 2), has_aux=True))(*inputs)
    return [np.asarray(x, np.float32) for x in (attended, *gradients)]


@pytest.mark.parametrize(
    "other",
    [
        lambda q, k, v: attend_on_tpu(q, k, v, interpret=True),
        lambda q, k, v: attend_by_blocks(q, k, v, 64),
    ],
    ids=["pallas", "blocked"],
)
def test_the_answer_and_its_gradients_are_those_of_the_definition(other: Any) -> None:
    plain = answer_and_gradients(attend, heads())
    for ours, defined in zip(answer_and_gradients(other, heads()), plain, strict=True):
        np.testing.assert_allclose(ours, defined, atol=2e-5)


@pytest.mark.parametrize(
    "other",
    [attend, lambda q, k, v: attend_on_tpu(q, k, v, interpret=True)],
    ids=["plain", "pallas"],
)
def test_in_bfloat16_it_is_the_float32_answer_rounded(other: Any) -> None:
    exact = answer_and_gradients(attend, heads())
    for ours, defined in zip(answer_and_gradients(other, heads(jnp.bfloat16)), exact, strict=True):
        error = np.abs(ours - defined).max() / np.abs(defined).max()
        assert 1e-4 < error < 0.02


@pytest.mark.parametrize(
    ("kind", "platform", "dtype", "frames", "chosen"),
    [
        ("auto", "tpu", "bfloat16", 32, "pallas"),
        ("auto", "tpu", "float32", 32, "pallas"),
        ("auto", "gpu", "bfloat16", 32, "cudnn"),
        ("auto", "gpu", "float32", 32, "blocked"),  # cuDNN's takes 16-bit types only
        ("auto", "cpu", "bfloat16", 32, "blocked"),
        ("auto", "tpu", "bfloat16", 4, "plain"),
        ("plain", "tpu", "bfloat16", 32, "plain"),
    ],
)
def test_auto_takes_the_kernel_of_the_devices(
    kind: Any, platform: str, dtype: Any, frames: int, chosen: str
) -> None:
    compute = ComputeConfig(attention=kind, dtype=dtype)
    assert choose(VideoConfig(frames=frames), compute, platform) == chosen


def test_cudnn_attention_is_lowered_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here to run it: the program that one would get calls cuDNN both ways."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    monkeypatch.setattr(
        fused_attention_stablehlo, "check_compute_capability", lambda capability: True
    )

    def score(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.sum(attention(query, key, value, "cudnn", None).astype(jnp.float32))

    inputs = heads(jnp.bfloat16)
    lowered = jax.jit(jax.grad(score, (0, 1, 2))).trace(*inputs).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("__cudnn$fmhaSoftmax") == 2
