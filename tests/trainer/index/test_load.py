"""`svilm.load` of each kind of folder."""

import numpy as np
import pytest

import svilm
from trainer.cli.main import main
from trainer.inference import api


def test_an_export_loads_as_the_model_that_was_exported(untrained_run, tmp_path):
    exported = tmp_path / "hf"
    assert main(["export", f"--run={untrained_run}", f"--out={exported}"]) == 0
    model, expected = svilm.load(exported), api.load(untrained_run)
    assert isinstance(model, svilm.Model)
    assert repr(model) == repr(expected).replace(str(untrained_run), str(exported))
    texts = ["a red ring", "a blue disc"]
    np.testing.assert_array_equal(model.embed_texts(texts), expected.embed_texts(texts))
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(model.embed_videos(clips), expected.embed_videos(clips))


def test_a_folder_that_is_none_of_them(untrained_run, tmp_path):
    with pytest.raises(svilm.RunError, match="is not a training run"):
        svilm.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(svilm.WeightsError, match=str(tmp_path)):
        svilm.load(tmp_path)
