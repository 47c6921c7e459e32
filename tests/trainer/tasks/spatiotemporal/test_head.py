"""The head, compared with RoIAlign in plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.tasks.roi_sampling import bin_weights
from trainer.tasks.spatiotemporal import head

ROWS, COLUMNS = 4, 6


def bilinear(plane, y, x):
    """Sample a map [rows, columns, d]."""
    rows, columns = plane.shape[:2]
    if y < -1 or y > rows or x < -1 or x > columns:
        return np.zeros(plane.shape[2])
    y, x = min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)
    low, left = int(y), int(x)
    high, right = min(low + 1, rows - 1), min(left + 1, columns - 1)
    return (
        plane[low, left] * (1 - (y - low)) * (1 - (x - left))
        + plane[low, right] * (1 - (y - low)) * (x - left)
        + plane[high, left] * (y - low) * (1 - (x - left))
        + plane[high, right] * (y - low) * (x - left)
    )


def roi_align(plane, box, bins):
    """Return [bins, bins, d], with one sample per cell of a bin, shifted by half a cell."""
    rows, columns, width = plane.shape
    x1, y1, x2, y2 = box * np.array([columns, rows, columns, rows]) - 0.5
    tall, wide = y2 - y1, x2 - x1
    down, across = int(np.ceil(tall / bins)), int(np.ceil(wide / bins))
    found = np.zeros((bins, bins, width))
    for p in range(bins):
        for q in range(bins):
            for i in range(down):
                for j in range(across):
                    y = y1 + (p + (i + 0.5) / down) * tall / bins
                    x = x1 + (q + (j + 0.5) / across) * wide / bins
                    found[p, q] += bilinear(plane, y, x)
    return found / max(down * across, 1)


# Of sixty-fourths, so that a box is a whole number of cells in float32, too, where it is one.
edges = st.tuples(st.integers(0, 64), st.integers(0, 64)).map(
    lambda ends: sorted(end / 64 for end in ends)
)


compiled = jax.jit(head.box_features, static_argnames="bins")


@settings(max_examples=60)
@given(st.tuples(*[st.tuples(edges, edges)] * 4), st.sampled_from([2, 7]))
def test_boxes_take_the_greatest_of_their_aligned_bins(drawn, bins):
    boxes = np.array([[x[0], y[0], x[1], y[1]] for x, y in drawn], np.float32).reshape(2, 2, 4)
    tokens = np.random.default_rng(0).normal(size=(2, 3, ROWS, COLUMNS, 5)).astype(np.float32)
    found = compiled(jnp.asarray(tokens), jnp.asarray(boxes), bins=bins)
    expected = [
        [roi_align(of_clip.mean(axis=0), box, bins).max(axis=(0, 1)) for box in some]
        for of_clip, some in zip(tokens, boxes.astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bins_are_those_of_the_other_tasks():
    """Compare with the other implementation, which allows any region."""
    ends = np.sort(np.random.default_rng(3).uniform(size=(20, 2)).astype(np.float32), axis=1)
    for bins, length in ((7, 28), (2, 5)):
        start, end = jnp.asarray(ends[None, :, 0]), jnp.asarray(ends[None, :, 1])
        found = head.bin_weights(start, end, bins, length)[0]
        expected = bin_weights(ends.astype(np.float64) * length - 0.5, bins, length)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_classifier_of_actions():
    rng = np.random.default_rng(1)
    features = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
    params = head.init_head(jax.random.key(0), 5, 80)
    found = head.logits(params, features)
    p = 1 / (1 + np.exp(-np.asarray(found, np.float64)))
    labels = rng.random((2, 3, 80)) < 0.1
    cost = -np.mean(np.where(labels, np.log(p), np.log(1 - p)), axis=-1)
    np.testing.assert_allclose(head.costs(found, jnp.asarray(labels)), cost, atol=1e-5)
    dropped = head.logits(params, features, 0.5, jax.random.split(jax.random.key(1), 2))
    assert not np.allclose(dropped, found)
