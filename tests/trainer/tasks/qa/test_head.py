from typing import Any

import jax
import numpy as np
from jax import random

from trainer.tasks.qa.head import Head, NormDense

GROUPS = random.normal(random.key(10), (3, 5, 4))
QUESTION = random.normal(random.key(11), (3, 6))


def arrays(params) -> Any:
    return jax.tree.map(np.asarray, params)


def dense(p, x):
    """g V / ‖V‖, the whole matrix's norm."""
    return x @ (p["scale"] * p["kernel"] / np.sqrt(np.sum(p["kernel"] ** 2))) + p["bias"]


def relu(x):
    return np.maximum(x, 0)


def test_the_fusion_is_butds():
    head = Head(answers=7, width=8)
    params: Any = head.init(random.key(0), GROUPS, QUESTION)["params"]
    # Scales and biases away from where they start.
    shifted = arrays(jax.tree.map(lambda x: x * 1.5 + 0.1, params))
    groups, question = np.asarray(GROUPS), np.asarray(QUESTION)
    found: Any = head.apply({"params": shifted}, GROUPS, QUESTION)
    attention = shifted["attention"]
    joint = (
        relu(dense(attention["video"], groups))
        * relu(dense(attention["question"], question))[:, None]
    )
    logits = dense(attention["weight"], joint)[..., 0]
    weights = np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True)
    video = np.sum(weights[..., None] * groups, axis=1)
    h = relu(dense(shifted["video"], video)) * relu(dense(shifted["question"], question))
    expected = dense(shifted["answer"], relu(dense(shifted["hidden"], h)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert shifted["hidden"]["kernel"].shape == (8, 16)


def test_linear_fusion_is_a_product_of_projections_of_the_mean():
    head = Head(answers=7, width=8, fusion="linear")
    params = arrays(head.init(random.key(0), GROUPS, QUESTION)["params"])
    assert "attention" not in params
    v = np.asarray(GROUPS).mean(axis=1) @ params["video"]["kernel"] + params["video"]["bias"]
    q = np.asarray(QUESTION) @ params["question"]["kernel"] + params["question"]["bias"]
    expected = dense(params["answer"], relu(dense(params["hidden"], v * q)))
    found: Any = head.apply({"params": params}, GROUPS, QUESTION)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_layer_starts_as_its_kernel_and_keeps_the_scale_apart():
    layer = NormDense(5)
    params: Any = layer.init(random.key(0), QUESTION)["params"]
    kernel = np.asarray(params["kernel"])
    assert np.abs(kernel).max() <= 6**-0.5
    for kernels in (kernel, 3 * kernel):
        found: Any = layer.apply({"params": {**params, "kernel": kernels}}, QUESTION)
        np.testing.assert_allclose(found, np.asarray(QUESTION) @ kernel, rtol=1e-5, atol=1e-6)


def test_dropout_is_an_examples_own():
    head = Head(answers=7, width=8)
    params = head.init(random.key(0), GROUPS, QUESTION)
    keys = random.split(random.key(1), 3)
    whole: Any = head.apply(params, GROUPS, QUESTION, keys)
    alone: Any = head.apply(params, GROUPS[1:2], QUESTION[1:2], keys[1:2])
    in_use: Any = head.apply(params, GROUPS, QUESTION)
    other: Any = head.apply(params, GROUPS, QUESTION, keys[::-1])
    np.testing.assert_allclose(whole[1:2], alone, rtol=1e-5, atol=1e-6)
    assert not np.allclose(whole, in_use)
    assert not np.allclose(whole, other)
