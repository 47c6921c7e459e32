"""StableHLO programs compute what the encoders of the run compute."""

import json
from typing import Any

import jax.export
import jaxtyping
import numpy as np
import pytest
import safetensors.numpy

from trainer.cli.main import main
from trainer.inference.encoder import Encoder
from trainer.runs import checkpoint


@pytest.fixture(scope="module")
def exported(untrained_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("stablehlo") / "out"
    argv = ["export", f"--run={untrained_run}", f"--out={out}", "--format=stablehlo"]
    # jaxtyping, which checks types in tests only, does not know symbolic sizes.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        assert main(argv) == 0
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return out


def program(folder, name) -> Any:
    return jax.export.deserialize(bytearray((folder / f"{name}.stablehlo").read_bytes()))


def test_programs_take_any_batch_and_answer_as_the_encoders(exported, untrained_run):
    run = checkpoint.load(untrained_run)
    encoder = Encoder(run.config, run.tokenizer, run.params)
    tensors = safetensors.numpy.load_file(exported / "model.safetensors")
    video = run.config.video
    shape = (3, video.frames, video.resolution, video.resolution, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = encoder.clips(frames)
    for count in (3, 2):
        answers = program(exported, "video").call(tensors, frames[:count])
        assert answers.keys() == {"clip", "groups", "group_of", "share"}
        for name, answer in answers.items():
            np.testing.assert_allclose(answer, getattr(expected, name)[:count], atol=1e-6)
    captions = ["a red ring", "a disc"]
    ids, mask = run.tokenizer.encode(captions, run.config.text.tokens)
    embedded = program(exported, "text").call(tensors, ids, mask)
    np.testing.assert_allclose(embedded, encoder.texts(captions), atol=1e-6)


def test_versions_and_shapes_are_written(exported, untrained_run):
    about = json.loads((exported / "programs.json").read_text())
    assert about["jax"] == jax.__version__
    text = about["programs"]["text"]
    assert text["platforms"] == ["cpu", "cuda", "rocm", "tpu"]
    assert list(text["inputs"].values()) == ["int32[b,12]", "bool[b,12]"]
    assert about["programs"]["video"]["outputs"]["clip"] == "float32[b,16]"
    found = program(exported, "text")
    assert found.calling_convention_version == text["calling_convention_version"]


def test_the_model_card_is_for_the_other_format(untrained_run, tmp_path, capsys):
    out = f"--out={tmp_path / 'out'}"
    argv = ["export", f"--run={untrained_run}", out, "--format=stablehlo", "--license=mit"]
    assert main(argv) == 2
    assert "--format huggingface" in capsys.readouterr().err
