"""ONNX Runtime computes from an export what the run computes in JAX."""

import json

import numpy as np
import onnxruntime
import pytest

from tests.interop.conftest import CAPTIONS
from tests.interop.test_transformers import random_frames
from trainer.cli.main import main


@pytest.mark.parametrize("pair", ["kmax"], indirect=True)
def test_programs_take_any_batch_and_answer_as_the_encoders(pair, tmp_path):
    jax, folder = pair
    out, run = tmp_path / "onnx", folder.parent / "run"
    assert main(["export", f"--run={run}", f"--out={out}", "--format=onnx"]) == 0
    assert json.loads((out / "programs.json").read_text())["step"] == 7

    video = onnxruntime.InferenceSession(out / "video.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in video.get_outputs()]
    assert names == ["clip", "groups", "group_of", "share"]
    frames = random_frames(jax.config, 3)
    expected = jax._encoder.clips(frames)
    for count in (1, 3):
        answers = video.run(None, {"frames": frames[:count]})
        for name, answer in zip(names, answers, strict=True):
            np.testing.assert_allclose(
                np.asarray(answer), getattr(expected, name)[:count], atol=1e-4
            )

    text = onnxruntime.InferenceSession(out / "text.onnx", providers=["CPUExecutionProvider"])
    ids, mask = jax._encoder.tokenizer.encode(CAPTIONS, jax.config.text.tokens)
    inputs = {"input_ids": ids.astype(np.int64), "attention_mask": mask.astype(np.int64)}
    (embedded,) = text.run(None, inputs)
    np.testing.assert_allclose(np.asarray(embedded), jax.embed_texts(CAPTIONS), atol=1e-4)
