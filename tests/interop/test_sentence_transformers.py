"""Sentence-Transformers encodes texts and videos as the run does."""

from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from tests.interop.conftest import CAPTIONS
from tests.interop.test_transformers import CARPHONE, TOLERANCE, random_frames


@pytest.mark.parametrize("pair", ["tiny"], indirect=True)
def test_texts_and_videos_are_encoded(pair):
    jax, folder = pair
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    texts = model.encode(CAPTIONS)
    np.testing.assert_allclose(texts, jax.embed_texts(CAPTIONS), atol=TOLERANCE)
    assert model.get_embedding_dimension() == jax.config.joint_width
    assert model.similarity_fn_name == "cosine"

    frames = random_frames(jax.config, 2)
    np.testing.assert_allclose(model.encode(list(frames)), jax.embed_videos(frames), atol=TOLERANCE)
    module: Any = model[0]
    clip = module.processor.clip(CARPHONE)
    (embedded,) = model.encode([str(CARPHONE)])
    np.testing.assert_allclose(embedded, jax.embed_videos([clip])[0], atol=TOLERANCE)


@pytest.mark.parametrize("pair", ["tiny"], indirect=True)
def test_a_saved_model_is_loaded_again(pair, tmp_path):
    _, folder = pair
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    model.save_pretrained(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode(CAPTIONS), model.encode(CAPTIONS))
