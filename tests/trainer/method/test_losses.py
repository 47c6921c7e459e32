"""The losses against scalar loops written from equations 1–7, and against finite differences."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.method import losses
from trainer.method.cut_and_paste import Splice, label_weights

Kind = Literal["mse", "bce"]
B, NT, S, D, M, K, E = 6, 4, 3, 5, 4, 2, 7


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def tokens(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(B, NT, S, D)).astype(np.float32)


@pytest.fixture
def mask() -> np.ndarray:
    rows = [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1]]
    return np.array(rows, bool)


@pytest.fixture
def groups(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.normal(size=(B, M, E))).astype(np.float32)


@pytest.fixture
def nouns(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.normal(size=(B, K, E))).astype(np.float32)


@pytest.fixture
def noun_valid() -> np.ndarray:
    rows = [[1, 1], [1, 0], [0, 0], [1, 1], [0, 1], [1, 1]]
    return np.array(rows, bool)


@pytest.fixture
def splice() -> Splice:
    partner = jnp.array([1, 2, 0, 4, 5, 3])
    share = jnp.array([0.5, 0.75, 0.5, 0.75, 0.75, 0.5], jnp.float32)
    return Splice(partner, jnp.zeros((B, NT), bool), share)


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def mean_vector(rows: list[np.ndarray]) -> np.ndarray:
    return np.mean(np.stack(rows).astype(np.float64), axis=0)


def slow_temporal(tokens: np.ndarray, mask: np.ndarray, tau: float, kind: str) -> list[float]:
    """Equations 1 and 2, a scalar at a time."""
    clips = []
    for i in range(len(tokens)):
        front = [tokens[i, j, s] for j in range(NT) for s in range(S) if mask[i, j]]
        back = [tokens[i, j, s] for j in range(NT) for s in range(S) if not mask[i, j]]
        z_f, z_b = mean_vector(front), mean_vector(back)
        total = 0.0
        for j in range(NT):
            z = mean_vector([tokens[i, j, s] for s in range(S)])
            a = softmax([cosine(z, z_b) / tau, cosine(z, z_f) / tau])
            target = [0.0, 1.0] if mask[i, j] else [1.0, 0.0]
            for value, wanted in zip(a, target, strict=True):
                if kind == "mse":
                    total += (value - wanted) ** 2
                else:
                    total -= wanted * math.log(value) + (1 - wanted) * math.log(1 - value)
        clips.append(total / (NT * 2))
    return clips


def slow_grounding(
    groups: np.ndarray, nouns: np.ndarray, valid: np.ndarray, tau: float
) -> np.ndarray:
    """Equation 3 with the pooled vector formed and normalized."""
    g_all = np.zeros((len(groups), len(nouns)))
    for v in range(len(groups)):
        for c in range(len(nouns)):
            found = []
            for k in range(K):
                if not valid[c, k]:
                    continue
                sigma = softmax([cosine(g, nouns[c, k]) / tau for g in groups[v]])
                pooled = np.zeros(E)
                for weight, g in zip(sigma, groups[v], strict=True):
                    pooled += weight * np.float64(g)
                found.append(cosine(nouns[c, k], pooled))
            g_all[v, c] = sum(found) / len(found) if found else 0.0
    return g_all


def slow_alignment(
    similarity: np.ndarray, partner: list[int], share: list[float], tau: float, valid: list[bool]
) -> tuple[float, float]:
    """Equations 5 to 7: both directions, each divided by B."""
    size = len(similarity)
    weight = [[0.0] * size for _ in range(size)]
    for i in range(size):
        weight[i][i] += share[i]
        weight[i][partner[i]] += 1 - share[i]
    v2c = c2v = 0.0
    for i in range(size):
        row = sum(math.exp(similarity[i][j] / tau) for j in range(size) if valid[j])
        for j in range(size):
            if valid[j]:
                v2c -= weight[i][j] * math.log(math.exp(similarity[i][j] / tau) / row)
    for i in range(size):
        column = sum(math.exp(similarity[j][i] / tau) for j in range(size))
        for j in range(size):
            if valid[i]:  # W^c = (W^v)^T
                c2v -= weight[j][i] * math.log(math.exp(similarity[j][i] / tau) / column)
    return v2c / size, c2v / size


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_temporal_grouping_equals_scalar_loops(
    tokens: np.ndarray, mask: np.ndarray, kind: Kind
) -> None:
    ours = losses.temporal_grouping(jnp.array(tokens), jnp.array(mask), 0.3, kind)
    np.testing.assert_allclose(ours, slow_temporal(tokens, mask, 0.3, kind), rtol=1e-5)


def test_a_whole_clip_costs_nothing_and_moves_nothing(tokens: np.ndarray) -> None:
    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(losses.temporal_grouping(x, jnp.ones((B, NT), bool), 0.07))

    value, gradient = jax.value_and_grad(loss)(jnp.array(tokens))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(tokens))


@pytest.mark.parametrize("block", [1, 4, 64])
def test_grounding_similarity_equals_scalar_loops(
    groups: np.ndarray, nouns: np.ndarray, noun_valid: np.ndarray, block: int
) -> None:
    ours = losses.grounding_similarity(
        jnp.array(groups), jnp.array(nouns), jnp.array(noun_valid), 0.07, block
    )
    np.testing.assert_allclose(
        ours, slow_grounding(groups, nouns, noun_valid, 0.07), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("valid", [[True] * B, [True, True, False, True, False, True]])
def test_alignment_equals_scalar_loops(
    rng: np.random.Generator, splice: Splice, valid: list[bool]
) -> None:
    similarity = rng.uniform(-1, 1, (B, B)).astype(np.float32)
    per_clip = losses.alignment(jnp.array(similarity), label_weights(splice), 0.2, jnp.array(valid))
    slow = slow_alignment(similarity, splice.partner.tolist(), splice.share.tolist(), 0.2, valid)
    np.testing.assert_allclose(float(jnp.mean(per_clip)), sum(slow), rtol=1e-5)


def test_no_caption_with_nouns_costs_nothing(splice: Splice) -> None:
    similarity, nobody = jnp.zeros((B, B)), jnp.zeros(B, bool)

    def loss(similarity: jax.Array) -> jax.Array:
        return jnp.sum(losses.alignment(similarity, label_weights(splice), 0.07, nobody))

    value, gradient = jax.value_and_grad(loss)(similarity)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros((B, B)))


def test_an_invalid_caption_sends_no_gradient(
    groups: np.ndarray, nouns: np.ndarray, noun_valid: np.ndarray, splice: Splice
) -> None:
    def loss(nouns: jax.Array) -> jax.Array:
        similarity = losses.grounding_similarity(
            jnp.array(groups), nouns, jnp.array(noun_valid), 0.07, 4
        )
        valid = jnp.any(jnp.array(noun_valid), axis=1)
        return jnp.mean(losses.alignment(similarity, label_weights(splice), 0.07, valid))

    gradient = np.asarray(jax.grad(loss)(jnp.array(nouns)))
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(-1) > 0).tolist() == noun_valid.tolist()


@jax.jit
def per_clip_losses(
    groups: jax.Array, nouns: jax.Array, valid: jax.Array, tokens: jax.Array, splice: Splice
) -> jax.Array:
    similarity = losses.grounding_similarity(groups, nouns, valid, 0.07, 2)
    captions = jnp.any(valid, axis=1)
    grounding = losses.alignment(similarity, label_weights(splice), 0.07, captions)
    return jnp.stack([grounding, losses.temporal_grouping(tokens, splice.mask, 0.07)])


@given(st.permutations(range(B)))
def test_a_permutation_of_the_batch_permutes_the_losses(order: list[int]) -> None:
    rng = np.random.default_rng(11)
    groups, nouns = unit(rng.normal(size=(B, M, E))), unit(rng.normal(size=(B, K, E)))
    tokens = rng.normal(size=(B, NT, S, D)).astype(np.float32)
    mask = rng.permuted(np.tile([True, True, False, False], (B, 1)), axis=1)
    valid = rng.random((B, K)) < 0.7
    partner, share = np.roll(np.arange(B), -1), rng.uniform(0.5, 1, B).astype(np.float32)

    def per_clip(at: np.ndarray, partner: np.ndarray) -> np.ndarray:
        splice = Splice(jnp.array(partner), jnp.array(mask[at]), jnp.array(share[at]))
        return np.asarray(
            per_clip_losses(
                jnp.array(groups[at], jnp.float32),
                jnp.array(nouns[at], jnp.float32),
                jnp.array(valid[at]),
                jnp.array(tokens[at]),
                splice,
            )
        )

    at = np.array(order)
    place = np.argsort(at)  # where each clip went
    np.testing.assert_allclose(
        per_clip(at, place[partner[at]]), per_clip(np.arange(B), partner)[:, at], rtol=2e-5
    )


def finite_difference_error(loss: Any, given: np.ndarray, rng: np.random.Generator) -> float:
    """Relative error of the gradient along a random direction, in float64."""
    with jax.enable_x64(True):
        loss = jax.jit(loss)
        x = jnp.array(given, jnp.float64)
        direction = jnp.array(rng.normal(size=x.shape), jnp.float64)
        step = 1e-6
        numeric = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
        analytic = jnp.sum(jax.grad(loss)(x) * direction)
        return abs(float(numeric - analytic)) / max(abs(float(numeric)), 1e-9)


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_temporal_gradient_equals_finite_differences(
    rng: np.random.Generator, tokens: np.ndarray, mask: np.ndarray, kind: Kind
) -> None:
    def loss(x: jax.Array) -> jax.Array:
        return jnp.mean(losses.temporal_grouping(x, jnp.array(mask), 0.2, kind))

    assert finite_difference_error(loss, tokens, rng) < 1e-6


@pytest.mark.parametrize("which", ["groups", "nouns"])
def test_grounding_gradient_equals_finite_differences(
    rng: np.random.Generator,
    groups: np.ndarray,
    nouns: np.ndarray,
    noun_valid: np.ndarray,
    splice: Splice,
    which: str,
) -> None:
    def loss(x: jax.Array) -> jax.Array:
        given = {
            "groups": jnp.array(groups, jnp.float64),
            "nouns": jnp.array(nouns, jnp.float64),
        } | {which: x}
        similarity = losses.grounding_similarity(
            given["groups"], given["nouns"], jnp.array(noun_valid), 0.2, 4
        )
        weights = label_weights(splice._replace(share=splice.share.astype(jnp.float64)))
        valid = jnp.any(jnp.array(noun_valid), axis=1)
        return jnp.mean(losses.alignment(similarity, weights, 0.2, valid))

    assert finite_difference_error(loss, {"groups": groups, "nouns": nouns}[which], rng) < 1e-6


def test_learned_temperature_gets_a_gradient(
    groups: np.ndarray, nouns: np.ndarray, noun_valid: np.ndarray
) -> None:
    def loss(tau: jax.Array) -> jax.Array:
        similarity = losses.grounding_similarity(
            jnp.array(groups), jnp.array(nouns), jnp.array(noun_valid), tau, 4
        )
        return jnp.sum(similarity)

    assert abs(float(jax.grad(loss)(jnp.float32(0.07)))) > 1e-4


def naive_grounding_similarity(
    groups: jax.Array, nouns: jax.Array, valid: jax.Array, tau: float, block: int
) -> jax.Array:
    """Eq. 3 as it is written, with the pooled vectors of all videos and nouns."""
    s = jnp.einsum("vme,cke->vckm", groups, nouns)
    pooled = jnp.einsum("vckm,vme->vcke", jax.nn.softmax(s / tau, axis=-1), groups)
    cosine = jnp.sum(losses.l2_normalize(pooled) * nouns[None], axis=-1)
    found = jnp.sum(jnp.where(valid[None], cosine, 0.0), axis=-1)
    return found / jnp.maximum(jnp.sum(valid, axis=-1), 1).astype(found.dtype)[None]


def test_grounding_fits_in_memory_at_the_papers_batch() -> None:
    """B = 1024, M = 32, K = 2, gradient included, on one device; eq. 3 as written does not."""
    clips, groups, nouns, width = 1024, 32, 2, 256

    def shape(*sizes: int, kind: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, kind)

    def gigabytes(similarity: Any) -> float:
        def loss(g: jax.Array, n: jax.Array, valid: jax.Array, weights: jax.Array) -> jax.Array:
            found = similarity(g, n, valid, 0.07, 64)
            return jnp.mean(losses.alignment(found, weights, 0.07, jnp.any(valid, axis=1)))

        compiled = (
            jax.jit(jax.grad(loss, (0, 1)))
            .lower(
                shape(clips, groups, width),
                shape(clips, nouns, width),
                shape(clips, nouns, kind=jnp.bool),
                shape(clips, clips),
            )
            .compile()
        )
        needed = compiled.memory_analysis()
        assert needed is not None
        return needed.temp_size_in_bytes / 1e9

    ours, naive = gigabytes(losses.grounding_similarity), gigabytes(naive_grounding_similarity)
    print(f"grounding at B = {clips}: {ours:.2f} GB, as written {naive:.2f} GB")
    assert ours < 0.4 and naive > 2.0


def test_grounding_is_eq_3_as_it_is_written(
    groups: np.ndarray, nouns: np.ndarray, noun_valid: np.ndarray
) -> None:
    """So that what is compared above is the same function."""
    given = jnp.array(groups), jnp.array(nouns), jnp.array(noun_valid), 0.07, 2
    np.testing.assert_allclose(
        losses.grounding_similarity(*given), naive_grounding_similarity(*given), atol=1e-5
    )
