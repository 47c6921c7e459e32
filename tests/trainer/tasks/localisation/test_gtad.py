"""G-TAD in PyTorch's layout, compared with plain NumPy loops, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.tasks.localisation import losses, pytorch_layout
from trainer.tasks.localisation.gtad import GTAD, GtadConfig, sampling_of
from trainer.tasks.localisation.targets import targets
from trainer.tasks.roi_sampling import bin_weights

LENGTH, CHANNELS, BATCH = 5, 4, 2
SIZES = GtadConfig(
    length=LENGTH, width=4, groups=2, group_width=3, map_width=6, map_hidden=5
)  # fmt: skip


# --- the network in loops, [C, T] a video ---


def relu(x):
    return np.maximum(x, 0)


def convolve(state, name, x):
    """Convolve along the last axis, [C, …, T], with zero padding."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    out, inputs = weight.shape[:2]
    kernel = weight.reshape(out, inputs, -1)
    size, groups = kernel.shape[2], x.shape[0] // inputs
    result = np.zeros((out, *x.shape[1:]))
    for o in range(out):
        first = (o // (out // groups)) * inputs
        for i in range(inputs):
            for k in range(size):
                for t in range(x.shape[-1]):
                    at = t + k - size // 2
                    if 0 <= at < x.shape[-1]:
                        result[o, ..., t] += kernel[o, i, k] * x[first + i, ..., at]
        result[o] += bias[o]
    return result


def near(x, t, k=3):
    distance = [np.sum((x[:, t] - x[:, u]) ** 2) for u in range(x.shape[1])]
    return np.argsort(distance, kind="stable")[:k]


def graph_block(state, name, x):
    t = relu(convolve(state, f"{name}.tconvs.0", x))
    t = relu(convolve(state, f"{name}.tconvs.2", t))
    t = convolve(state, f"{name}.tconvs.4", t)
    length = x.shape[1]
    pairs = np.zeros((2 * x.shape[0], 3, length))
    for u in range(length):
        for place, v in enumerate(near(x, u)):
            pairs[:, place, u] = np.concatenate([x[:, v], x[:, u]])
    s = relu(convolve(state, f"{name}.sconvs.0", pairs))
    s = relu(convolve(state, f"{name}.sconvs.2", s))
    s = convolve(state, f"{name}.sconvs.4", s).max(axis=1)
    return relu(t + x + s)


def sample(x, t):
    length = x.shape[1]
    if t < -1 or t > length:
        return np.zeros(x.shape[0])
    t = min(max(t, 0), length - 1)
    low = int(t)
    high = min(low + 1, length - 1)
    return x[:, low] * (1 - (t - low)) + x[:, high] * (t - low)


def region(x, start, end, bins):
    """Return the features of a region, [C, bins]."""
    extent = max(end - start, 1.0)
    n = int(np.ceil(extent / bins))
    width = extent / bins
    return np.stack(
        [
            np.mean([sample(x, start + (b + (i + 0.5) / n) * width) for i in range(n)], axis=0)
            for b in range(bins)
        ],
        axis=1,
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def network(state, x):
    """Return the outputs for one video: map [2, D, S], start, end."""
    base = graph_block(state, "backbone1.2", relu(convolve(state, "backbone1.0", x)))
    boundaries = [
        sigmoid(convolve(state, f"{name}.1", graph_block(state, f"{name}.0", base)))[0]
        for name in ("regu_s", "regu_e")
    ]
    x = graph_block(state, "backbone2.0", base)
    length = x.shape[1]
    context = np.stack([x[:, near(x, t)].mean(axis=1) for t in range(length)], axis=1)
    found = np.zeros((x.shape[0] * 36, length, length))
    for d in range(length):
        for s in range(length):
            ends = (s - 0.5 * (d + 1), s + d + 0.5 * (d + 1)) if s + d < length else (0.0, 0.0)
            bins = np.concatenate([region(x, *ends, 32), region(context, *ends, 4)], axis=1)
            found[:, d, s] = bins.reshape(-1)  # by channel, then by bin
    for layer in (0, 2, 4, 6):
        found = relu(convolve(state, f"localization.{layer}", found))
    return sigmoid(convolve(state, "localization.8", found)), *boundaries


def balanced(p, positive, counted):
    n, n_positive = counted.sum(), max((positive & counted).sum(), 1)
    ratio = n / n_positive
    total = 0.0
    for at in np.ndindex(p.shape):
        if positive[at] and counted[at]:
            total += 0.5 * ratio * np.log(p[at] + 1e-6)
        elif counted[at]:
            total += 0.5 * ratio / (ratio - 1) * np.log(1 - p[at] + 1e-6)
    return -total / n


def plain_losses(state, features, true_map, true_start, true_end, uniform):
    outputs = [network(state, x) for x in features]
    maps, start, end = (np.stack(part) for part in zip(*outputs, strict=True))
    valid = np.zeros(true_map.shape, bool)
    for d in range(true_map.shape[1]):
        valid[:, d, : true_map.shape[2] - d] = True
    g = true_map * valid
    classes = [g > 0.7, (g > 0.3) & (g <= 0.7), (g > 0) & (g <= 0.3)]
    weight = classes[0].astype(float)
    for of, drawn in zip(classes[1:], uniform, strict=True):
        if of.any():
            weight += of & (drawn > 1 - classes[0].sum() / of.sum())
    squared = 0.5 * np.sum(weight * (maps[:, 0] - g) ** 2) / max(weight.sum(), 1)
    everywhere = np.ones(true_start.shape, bool)
    boundary = balanced(start, true_start > 0.5, everywhere)
    boundary += balanced(end, true_end > 0.5, everywhere)
    classification = balanced(maps[:, 1], g > 0.9, valid)
    total = boundary + 10 * squared + classification
    return maps, start, end, dict(
        total=total, boundary=boundary, regression=squared, classification=classification
    )  # fmt: skip


@pytest.fixture(scope="module")
def problem():
    """Weights, features and targets such that each class of proposals occurs."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(
        lambda: GTAD(SIZES).init(
            jax.random.key(0), jnp.zeros((1, LENGTH, CHANNELS)), sampling_of(SIZES)
        )
    )["params"]
    ours = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.4, shapes)
    actions = [np.array([[0.2, 0.8]]), np.array([[0.0, 0.4], [0.6, 0.97]])]
    true = [np.stack(part) for part in zip(*(targets(a, LENGTH) for a in actions), strict=True)]
    return (
        pytorch_layout.state_of(ours),
        rng.normal(size=(BATCH, CHANNELS, LENGTH)),
        *true,
        rng.uniform(size=(2, BATCH, LENGTH, LENGTH)),
    )


def test_outputs_and_losses_are_those_of_the_description(problem):
    found = pytorch_layout.answer(*problem)
    maps, start, end, parts = plain_losses(*problem)
    np.testing.assert_allclose(found.map, maps, atol=1e-10)
    np.testing.assert_allclose(found.start, start, atol=1e-10)
    np.testing.assert_allclose(found.end, end, atol=1e-10)
    for name, value in parts.items():
        assert found.losses[name] == pytest.approx(value, rel=1e-10), name
    assert 0 < parts["regression"] < parts["classification"]


def test_single_precision_comes_close(problem):
    state, *arrays = problem
    exact = pytorch_layout.answer(*problem)
    state = {f"module.{name}": array.astype(np.float32) for name, array in state.items()}
    found = pytorch_layout.answer(state, *(array.astype(np.float32) for array in arrays))
    np.testing.assert_allclose(found.map, exact.map, atol=1e-5)
    assert found.losses["total"] == pytest.approx(exact.losses["total"], rel=1e-5)


def test_gradients_are_those_of_the_description_by_finite_differences(problem):
    state, features, *true = problem
    found = pytorch_layout.answer(*problem).gradients
    assert found.keys() == {*state, "features"}
    rng, step = np.random.default_rng(0), 1e-6
    for name, gradient in found.items():
        array = features if name == "features" else state[name]
        assert gradient.shape == array.shape
        direction = rng.normal(size=array.shape)
        change = []
        for sign in (1, -1):
            moved = array + sign * step * direction
            if name == "features":
                parts = plain_losses(state, moved, *true)[3]
            else:
                parts = plain_losses(state | {name: moved}, features, *true)[3]
            change.append(parts["total"])
        expected = (change[0] - change[1]) / (2 * step)
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=2e-5, abs=1e-7), name


def test_the_authors_network_has_so_many_parameters():
    config = GtadConfig()
    shapes = jax.eval_shape(
        lambda: GTAD(config).init(
            jax.random.key(0), jnp.zeros((1, 100, 400)), jnp.zeros((5051, 36, 100))
        )
    )["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 5_563_268


@settings(max_examples=60)
@given(
    start=st.floats(-60, 110), extent=st.floats(0, 200), bins=st.sampled_from([1, 4, 32])
)  # fmt: skip
def test_bins_are_means_of_interpolated_samples(start, extent, bins):
    length = 100
    x = np.random.default_rng(0).normal(size=(3, length))
    weights = bin_weights(np.array([[start, start + extent]]), bins, length, least=1.0)[0]
    np.testing.assert_allclose(x @ weights.T, region(x, start, start + extent, bins), atol=1e-9)


def test_no_positives_and_nothing_but_positives_cost_finite_amounts():
    p = jnp.array([0.2, 0.9])
    every, none = jnp.array([True, True]), jnp.array([False, False])
    for positive in (every, none):
        cost, slope = jax.value_and_grad(losses.balanced_cross_entropy)(p, positive, every)
        assert np.isfinite(cost) and np.all(np.isfinite(slope)) and np.all(slope != 0)
    empty = jnp.zeros((1, 3, 3))
    assert losses.regression(empty + 0.5, empty, jnp.ones((2, 1, 3, 3))) == 0


def test_as_many_proposals_of_each_class_count_as_there_are_good_ones():
    true = np.concatenate([np.full(10, 0.8), np.full(400, 0.5), np.full(1000, 0.1), np.zeros(99)])
    true = jnp.asarray(true, jnp.float32)[None, None]
    drawn = losses.draw(jax.random.key(0), 1, 1509)[:, :, :1]
    # Every error is 1, so the mean is ½ for any selection. Test each class alone.
    for value, share in ((0.8, 1 / 3), (0.5, 1 / 3), (0.1, 1 / 3), (0.0, 0)):
        off = jnp.where(true == value, true + 1, true)
        assert losses.regression(off, true, drawn) == pytest.approx(share / 2, abs=0.08)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("backbone2.0.sconvs.2.bias"),
            "backbone2.0.sconvs.2.bias is missing",
        ),
        (lambda state: state.update(extra=np.ones(2)), "1 weights are not part of G-TAD"),
        (
            lambda state: state.update({"backbone1.0.weight": np.ones((4, 3, 3))}),
            "not a multiple of",
        ),
        (
            lambda state: state.update({"localization.0.weight": np.ones((6, 144))}),
            r"localization\.0\.weight has 2 axes, expected 4",
        ),
        (
            lambda state: state.update({"localization.0.weight": np.ones((6, 99, 1, 1))}),
            "takes 99 features per proposal, expected 144",
        ),
        (
            lambda state: state.update({"localization.4.weight": np.ones((5, 5, 3, 3))}),
            r"localization\.4\.weight must be \(5, 5, 1, 1\) .* got \(5, 5, 3, 3\)",
        ),
        (
            lambda state: state.update({"regu_s.1.bias": np.ones(3)}),
            r"regu_s\.1\.bias must be \(1,\) .* got \(3,\)",
        ),
        (
            lambda state: state.update({"backbone1.0.weight": np.ones((4, 4, 1))}),
            r"backbone1\.0\.weight must be \(4, 4, 3\) .* got \(4, 4, 1\)",
        ),
    ],
)
def test_mismatched_weights_are_refused(problem, change, message):
    state, *rest = problem
    changed = dict(state)
    change(changed)
    with pytest.raises(pytorch_layout.LayoutError, match=message):
        pytorch_layout.answer(changed, *rest)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda x: x[0], r"features must be .* \[videos, channels, times\], got .* \(4, 5\)"),
        (0, lambda x: x.astype(np.float16), "must be float32 or float64 .* got float16"),
        (1, lambda x: x[0], r"true_map must be \(2, 5, 5\) .* got \(5, 5\)"),
        (2, lambda x: x[0], r"true_start must be \(2, 5\) for features \(2, 4, 5\), got \(5,\)"),
        (4, lambda x: x[0], r"uniform must be \(2, 2, 5, 5\) .* got \(2, 5, 5\)"),
    ],
)
def test_mismatched_arrays_are_refused(problem, place, change, message):
    arrays = [change(x) if place == at else x for at, x in enumerate(problem[1:])]
    names = ("true_map", "true_start", "true_end", "uniform")
    with pytest.raises(pytorch_layout.LayoutError, match=message):
        pytorch_layout.check_arrays(arrays[0], dict(zip(names, arrays[1:], strict=True)))


def test_fewer_times_than_neighbours_do_not_fit(problem):
    with pytest.raises(pytorch_layout.LayoutError, match="at 2 times do not fit"):
        pytorch_layout.config_of(problem[0], CHANNELS, 2)
