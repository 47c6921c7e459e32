"""The head, against RoIAlign in plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.tasks.spatiotemporal import files, head
from trainer.tasks.spatiotemporal.head import HeadConfig

ROWS, COLUMNS = 4, 6


def bilinear(plane, y, x):
    """Of [rows, columns, d]."""
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
    """[bins, bins, d]; as many samples a bin as cells, half a cell shifted."""
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


edges = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@settings(max_examples=60)
@given(st.lists(st.tuples(edges, edges), min_size=1, max_size=3), st.sampled_from([1, 2, 7]))
def test_boxes_take_the_greatest_of_their_aligned_bins(drawn, bins):
    boxes = np.array([[x[0], y[0], x[1], y[1]] for x, y in drawn])
    tokens = np.random.default_rng(0).normal(size=(2, 3, ROWS, COLUMNS, 5))
    clip = np.arange(len(boxes)) % 2
    found = np.einsum(
        "npr,nrcd,nqc->npqd",
        head.roi_weights(boxes, ROWS, COLUMNS, bins)[0],
        tokens.mean(axis=1)[clip],
        head.roi_weights(boxes, ROWS, COLUMNS, bins)[1],
    )
    for box, of, bins_of_box in zip(boxes, clip, found, strict=True):
        expected = roi_align(tokens[of].mean(axis=0), box, bins)
        np.testing.assert_allclose(bins_of_box, expected, atol=1e-9)


def test_the_head_from_tokens_to_a_loss():
    rng = np.random.default_rng(1)
    boxes = np.array([[0.1, 0.2, 0.8, 0.9], [0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.4, 0.5]])
    tokens = rng.normal(size=(2, 3, ROWS, COLUMNS, 5)).astype(np.float32)
    clip = np.array([1, 0, 1])
    weights = [jnp.asarray(part, jnp.float32) for part in head.roi_weights(boxes, ROWS, COLUMNS, 7)]
    features = head.box_features(jnp.asarray(tokens), jnp.asarray(clip), *weights)
    expected = [
        roi_align(tokens[of].mean(axis=0), box, 7).max(axis=(0, 1))
        for of, box in zip(clip, boxes, strict=True)
    ]
    np.testing.assert_allclose(features, expected, atol=1e-5)

    params = head.init_head(jax.random.key(0), 5)
    found = head.logits(params, features, HeadConfig())
    p = 1 / (1 + np.exp(-np.asarray(found, np.float64)))
    labels, real = rng.random((3, 80)) < 0.1, np.array([True, True, False])
    cost = -np.mean(np.where(labels, np.log(p), np.log(1 - p))[:2])
    assert abs(head.loss(found, jnp.asarray(labels), jnp.asarray(real)) - cost) < 1e-5

    dropped = head.logits(
        params, features, HeadConfig(), jax.random.split(jax.random.key(1), 3)
    )  # fmt: skip
    assert not np.allclose(dropped, found)


def test_detections_of_the_head_are_scored(tmp_path):
    box = np.array([[0.1, 0.2, 0.8, 0.9]])
    probabilities = np.full((1, 80), 0.1)
    probabilities[0, 11] = 0.9
    path = tmp_path / "found.csv"
    files.write_detections(path, head.labelled([("a", 902)], box, probabilities))
    truth = tmp_path / "truth.csv"
    truth.write_text("a,0902,0.1,0.2,0.8,0.9,12,1\n")
    found = files.score([path], [truth])
    assert (found["official"], found["detections"]) == (100, 60)
