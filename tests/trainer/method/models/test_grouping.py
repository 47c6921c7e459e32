"""The grouping block against appendix A.2."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from trainer.method.models.grouping import GroupingBlock, assign, gather
from trainer.method.models.transformer import gelu

B, M, N, D = 2, 3, 10, 6


def test_assignment_is_over_groups_and_one_hot() -> None:
    logits = random.normal(random.key(0), (B, M, N))
    hard, soft = assign(logits)
    np.testing.assert_allclose(np.sum(soft, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.sum(hard, axis=1), 1)
    np.testing.assert_array_equal(np.argmax(hard, axis=1), np.argmax(logits, axis=1))


def test_gumbel_noise_moves_the_hard_assignment_and_passes_gradients_through() -> None:
    logits, noise = jnp.zeros((1, 2, 3)), jnp.array([[[0.0, 2.0, 0.0], [1.0, 0.0, 1.0]]])
    np.testing.assert_array_equal(np.round(assign(logits, noise).hard, 6), [[[0, 1, 0], [1, 0, 1]]])

    def first_group(logits: jax.Array) -> jax.Array:
        return jnp.sum(assign(logits, noise).hard[:, 0])

    def first_group_softly(logits: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.softmax(logits + noise, axis=1)[:, 0])

    np.testing.assert_allclose(
        jax.grad(first_group)(logits), jax.grad(first_group_softly)(logits), atol=1e-6
    )


def test_an_empty_group_gathers_nothing_and_a_full_one_shrinks_by_one() -> None:
    assignment = jnp.zeros((1, 2, 4)).at[:, 0].set(1.0)
    gathered = gather(assignment, jnp.ones((1, 4, 5)))
    np.testing.assert_allclose(gathered[0], [[4 / 5] * 5, [0] * 5], rtol=1e-6)


def test_the_block_can_start_with_grouping() -> None:
    groups = random.normal(random.key(1), (B, M, D))
    one, other = random.normal(random.key(2), (2, B, N, D))
    block = GroupingBlock(1e-6, gelu("tanh"), out="xavier")
    params = jax.jit(block.init)(random.key(3), groups, one, None)
    from_one, _ = jax.jit(block.apply)(params, groups, one, None)
    from_other, _ = jax.jit(block.apply)(params, groups, other, None)
    assert np.abs(np.asarray(from_one) - np.asarray(from_other)).max() > 0.01


def test_the_block_starts_without_grouping() -> None:
    """Wo starts at zero: only the MLP moves the group tokens, whatever the video says."""
    groups = random.normal(random.key(1), (B, M, D))
    one, other = random.normal(random.key(2), (2, B, N, D))
    block = GroupingBlock(1e-6, gelu("tanh"))
    params = jax.jit(block.init)(random.key(3), groups, one, None)
    from_one, _ = jax.jit(block.apply)(params, groups, one, None)
    from_other, _ = jax.jit(block.apply)(params, groups, other, None)
    np.testing.assert_array_equal(from_one, from_other)


def test_the_block_equals_scalar_loops() -> None:
    groups = random.normal(random.key(1), (1, M, D))
    tokens = random.normal(random.key(2), (1, N, D))
    block = GroupingBlock(1e-6, gelu("tanh"))
    params = jax.jit(block.init)(random.key(3), groups, tokens, None)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = random.split(random.key(4), len(leaves))
    filled = [random.normal(key, leaf.shape) * 0.3 for key, leaf in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(tree, filled)
    applied: Any = jax.jit(block.apply)({"params": params}, groups, tokens, None)
    updated, assignment = applied

    def norm(x: jax.Array, name: str) -> np.ndarray:
        centred = np.asarray(x) - np.mean(x)
        scaled = centred / np.sqrt((centred**2).mean() + 1e-6)
        return scaled * np.asarray(params[name]["scale"]) + np.asarray(params[name]["bias"])

    def dense(x: np.ndarray, p: Any) -> np.ndarray:
        return x @ np.asarray(p["kernel"]) + np.asarray(p["bias"])

    q = [dense(norm(groups[0, m], "norm_groups"), params["query"]) for m in range(M)]
    k = [dense(norm(tokens[0, n], "norm_tokens"), params["key"]) for n in range(N)]
    v = [dense(norm(tokens[0, n], "norm_tokens"), params["value"]) for n in range(N)]
    owner = [int(np.argmax([q[m] @ k[n] / np.sqrt(D) for m in range(M)])) for n in range(N)]
    for m in range(M):
        mine = [n for n in range(N) if owner[n] == m]
        total = sum((v[n] for n in mine), np.zeros(D)) / (len(mine) + 1)
        g = groups[0, m] + dense(total, params["out"])
        hidden = dense(norm(g, "norm_mlp"), params["mlp"]["in"])
        hidden = np.asarray(jax.nn.gelu(jnp.asarray(hidden), approximate=True))
        g = g + dense(hidden, params["mlp"]["out"])
        np.testing.assert_allclose(updated[0, m], g, rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(np.argmax(assignment.hard[0], axis=0), owner)


@pytest.mark.parametrize("kind", ["groupvit", "kmax"])
def test_other_blocks_assign_as_theirs_do(kind: Any) -> None:
    groups = random.normal(random.key(1), (B, M, D))
    tokens = random.normal(random.key(2), (B, N, D))
    noise = random.gumbel(random.key(5), (B, M, N))
    block = GroupingBlock(1e-6, gelu("erf"), out="xavier", kind=kind, heads=2)
    params = jax.jit(block.init)(random.key(3), groups, tokens, noise)

    def score(params: Any) -> tuple[jax.Array, Any]:
        applied: Any = block.apply(params, groups, tokens, noise)
        updated, assignment = applied
        return jnp.sum(jnp.sin(updated)), assignment

    gradient, assignment = jax.jit(jax.grad(score, has_aux=True))(params)
    gradient = gradient["params"]
    applied: Any = jax.jit(block.apply)(params, groups, tokens, None)
    _, quiet = applied
    moved = np.any(np.round(assignment.hard) != quiet.hard)
    learns = [bool(np.any(gradient[name]["kernel"])) for name in ("query", "key", "value")]
    if kind == "kmax":  # no noise, and nothing to learn assignments from
        assert not moved and learns == [False, False, True]
    else:
        assert moved and learns == [True, True, True]


def test_groupvits_groups_depend_on_the_video_before_the_assignment() -> None:
    """Its block attends to the video first; ours, with Wo at zero, does not see it at all."""
    groups = random.normal(random.key(1), (B, M, D))
    one, other = random.normal(random.key(2), (2, B, N, D))
    block = GroupingBlock(1e-6, gelu("erf"), kind="groupvit", heads=2)
    params = jax.jit(block.init)(random.key(3), groups, one, None)
    from_one, _ = jax.jit(block.apply)(params, groups, one, None)
    from_other, _ = jax.jit(block.apply)(params, groups, other, None)
    assert np.abs(np.asarray(from_one) - np.asarray(from_other)).max() > 0.01
