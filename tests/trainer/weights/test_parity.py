"""This project's encoders equal the implementations that their weights come from.

The checkpoints in tests/data/parity are tiny and random; the answers beside them in io.npz are
those of transformers 4.57.6 on PyTorch 2.13, in float32 and evaluation mode. Every bias is
non-zero, so that a dropped one shows.
"""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.trainer.weights.hidden_states import group_states, text_states, video_states

DATA = pathlib.Path(__file__).parents[2] / "data" / "parity"
TOLERANCE = 1e-5


def answers(name):
    return np.load(DATA / name / "io.npz")


@pytest.mark.parametrize(
    ("name", "states"), [("videomae", "last_hidden_state"), ("vivit", "without_class_token")]
)
def test_video_encoder(name, states):
    with answers(name) as arrays:
        ours = video_states(DATA / name, jnp.asarray(arrays["pixels"]))
        np.testing.assert_allclose(ours, arrays[states], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "states", "tolerance"),
    [
        # Without a final norm, states are up to 16: in float64 the reference's differ by 2e-5.
        ("videomae", "last_hidden_state", 5e-5),
        ("vivit", "without_class_token", TOLERANCE),
    ],
)
def test_video_encoder_of_other_sizes(altered, name, states, tolerance):
    # A pixel of each 3³ is the reference's, and the kernel sees no other: the tokens are the same.
    times, kernel = 3, "embeddings.patch_embeddings.projection.weight"

    def spread(array, axes):
        shape = [times * size if axis in axes else size for axis, size in enumerate(array.shape)]
        seen = tuple(slice(None, None, times if axis in axes else 1) for axis in range(array.ndim))
        large = np.zeros(shape, array.dtype)
        large[seen] = array
        return large

    sizes = json.loads((DATA / name / "config.json").read_text())
    for size in sizes.keys() & {"num_frames", "image_size", "tubelet_size", "patch_size"}:
        value = sizes[size]
        sizes[size] = [times * n for n in value] if isinstance(value, list) else times * value
    large = altered(
        name, lambda tensors: tensors | {kernel: spread(tensors[kernel], (2, 3, 4))}, **sizes
    )
    with answers(name) as arrays:
        pixels = spread(arrays["pixels"], (1, 2, 3))
        ours = video_states(str(large), jnp.asarray(np.where(pixels == 0, 7, pixels)))
        np.testing.assert_allclose(ours, arrays[states], atol=tolerance)


def test_video_encoder_with_the_norm_of_self_supervised_videomae(altered):
    weight, bias = np.linspace(0.5, 2, 24, dtype=np.float32), np.linspace(-1, 1, 24, dtype="f")
    norm = {"videomae.layernorm.weight": weight, "videomae.layernorm.bias": bias}
    pre_trained = altered(
        "videomae",
        lambda tensors: (
            {f"videomae.{name}": value for name, value in tensors.items()}
            | norm
            | {"mask_token": np.ones((1, 1, 8), np.float32)}
        ),
        use_mean_pooling=False,
    )
    with answers("videomae") as arrays:
        x = arrays["last_hidden_state"].astype(float)
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        ours = video_states(pre_trained, jnp.asarray(arrays["pixels"]))
        np.testing.assert_allclose(ours, normed * weight + bias, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["videomae", "vivit"])
def test_video_encoder_without_biases_of_queries_keys_and_values(altered, name):
    ours = r".*attention\.attention\.(q_bias|v_bias|query\.bias|key\.bias|value\.bias)"

    def change(tensors, keep):
        return {
            key: tensor * (not re.fullmatch(ours, key))
            for key, tensor in tensors.items()
            if keep or not re.fullmatch(ours, key)
        }

    # Zeros are none, and with biases the test above has the reference's answers.
    zeros = altered(name, lambda tensors: change(tensors, keep=True), copy="zeros")
    none = altered(name, lambda tensors: change(tensors, keep=False), qkv_bias=False)
    with answers(name) as arrays:
        pixels = jnp.asarray(arrays["pixels"])
    np.testing.assert_array_equal(video_states(none, pixels), video_states(zeros, pixels))
    assert not np.allclose(video_states(none, pixels), video_states(DATA / name, pixels))


def test_text_encoder():
    with answers("bert") as arrays:
        mask = arrays["attention_mask"] > 0
        ids = jnp.asarray(arrays["input_ids"].astype(np.int32))
        ours = text_states(DATA / "bert", ids, jnp.asarray(mask))
        np.testing.assert_allclose(ours[mask], arrays["last_hidden_state"][mask], atol=TOLERANCE)


def test_assignment_and_its_gradients():
    with answers("assign") as arrays:
        weights = {
            name.removeprefix("w."): jnp.asarray(arrays[name])
            for name in arrays
            if name.startswith("w.")
        }
        query, key = jnp.asarray(arrays["query"]), jnp.asarray(arrays["key"])
        gumbel = jnp.asarray(arrays["gumbel"])
        block = functools.partial(group_states, weights)

        def score(query, key):
            out = block(query, key, gumbel)
            return jnp.sum(out * jnp.cos(jnp.arange(out.size, dtype=out.dtype).reshape(out.shape)))

        np.testing.assert_allclose(block(query, key), arrays["eval_out"], atol=TOLERANCE)
        np.testing.assert_allclose(block(query, key, gumbel), arrays["train_out"], atol=TOLERANCE)
        of_query, of_key = jax.grad(score, (0, 1))(query, key)
        np.testing.assert_allclose(of_query, arrays["grad_query"], atol=TOLERANCE)
        np.testing.assert_allclose(of_key, arrays["grad_key"], atol=TOLERANCE)
