"""This project's encoders equal five versions of transformers on their folders.

tests/data/transformers/make.py made the folders and the answers, each with the version of its name.
"""

import functools
import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.trainer.weights.hidden_states import assert_close, text_states, video_states
from trainer.configs.config import TextConfig, VideoConfig
from trainer.weights import bert, hf_format, param_mapping, video
from trainer.weights.hf_format import WeightsError

DATA = pathlib.Path(__file__).parents[2] / "data" / "transformers"
VERSIONS = ("4.44.2", "4.57.6", "5.8.1", "5.18.0", "5.24.0")
TEXT = (
    *("BertModel", "BertForPreTraining", "BertForMaskedLM", "BertForNextSentencePrediction"),
    *("BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering"),
    "BertForMultipleChoice",
)
VIDEO = (
    *("VivitModel", "VivitForVideoClassification", "VivitModel-without-bias"),
    *("VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"),
    *("VideoMAEModel-without-bias", "VideoMAEForPreTraining-without-bias"),
)
SIZES = {
    **{"vocabulary": 20, "tokens": 10, "positions": 10, "width": 8},
    **{"layers": 2, "heads": 2, "mlp_width": 12, "norm_eps": 1e-6},
}
VIDEO_SIZES = VideoConfig(frames=4, resolution=16, layers=2, grouping_after=(2,), group_tokens=2)


@functools.cache
def answers(version):
    with np.load(DATA / version / "answers.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def altered_version(tmp_path):
    """Read a copy of a folder with other tensors or settings."""

    def alter(name, tensors=lambda tensors: tensors, copy="altered", **settings):
        copy = tmp_path / copy
        shutil.copytree(DATA / "5.24.0" / name, copy)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | settings))
        held = safetensors.numpy.load_file(copy / "model.safetensors")
        safetensors.numpy.save_file(tensors(held), copy / "model.safetensors")
        return hf_format.read(copy)

    return alter


def test_every_folder_is_tried():
    for version in VERSIONS:
        assert {path.name for path in (DATA / version).iterdir() if path.is_dir()} == {
            *TEXT,
            *VIDEO,
            "tokenisers",
        }


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("version", VERSIONS)
def test_text_encoders(version, name):
    known = answers(version)
    mask = known["attention_mask"]
    ours = text_states(
        DATA / version / name, jnp.asarray(known["input_ids"], int), jnp.asarray(mask)
    )
    assert_close(np.asarray(ours)[mask], known[name][mask])


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("version", VERSIONS)
def test_video_encoders(version, name):
    known = answers(version)
    pixels = jnp.asarray(known["pixels"].transpose(0, 1, 3, 4, 2))
    ours = video_states(DATA / version / name, pixels)
    assert_close(ours, known[name])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("BertModel", "pooler"),
        ("BertForPreTraining", "cls, pooler"),
        ("BertForQuestionAnswering", "qa_outputs"),
        ("BertForTokenClassification", "classifier"),
        ("VivitForVideoClassification", "classifier, embeddings.cls_token"),
        ("VideoMAEForPreTraining", "decoder, encoder_to_decoder, mask_token"),
    ],
)
def test_unused_parts_are_named(name, told):
    module = bert if name.startswith("Bert") else video
    names = module.unused_parts(hf_format.read(DATA / "5.24.0" / name))
    assert ", ".join(param_mapping.parts(names)) == told


def test_a_head_of_any_name_is_left_out(altered_version):
    def change(tensors):
        return tensors | {"crf.transitions": np.ones((2, 2), np.float32)}

    assert "crf" in param_mapping.parts(
        bert.unused_parts(altered_version("BertForMaskedLM", change))
    )
    bert.params(altered_version("BertForMaskedLM", change, copy="other"), TextConfig(**SIZES))
    # Without the prefix nothing says that it is a head's.
    with pytest.raises(WeightsError, match=r"crf\.transitions is not a tensor of the model"):
        bert.params(altered_version("BertModel", change, copy="bare"), TextConfig(**SIZES))


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("BertModel", {"is_decoder": True}, "is_decoder is True, but only False is supported"),
        ("BertModel", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("BertModel", {"position_embedding_type": "relative_key"}, "position_embedding_type is"),
        ("BertModel", {"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ("VideoMAEModel", {"qkv_bias": False}, "qkv_bias is False, but qv_bias True"),
        ("VideoMAEModel", {"qv_bias": False}, "attention.q_bias is not a tensor of the model"),
        ("VideoMAEModel-without-bias", {"qv_bias": True}, "attention.q_bias is missing"),
        ("VivitModel", {"qkv_bias": False}, "attention.query.bias is not a tensor of the model"),
    ],
)
def test_unsupported_settings_are_refused(altered_version, name, settings, told):
    with pytest.raises(WeightsError) as caught:
        checkpoint = altered_version(name, **settings)
        if name.startswith("Bert"):
            bert.text_config(checkpoint, TextConfig(**SIZES))
        else:
            sizes = video.video_config(checkpoint, VIDEO_SIZES)
            video.params(checkpoint, sizes)
    assert told in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(altered_version, value):
    def change(tensors):
        tensors["encoder.layer.1.output.dense.bias"][2:4] = value
        return tensors

    for name, module, sizes in (("BertModel", bert, TextConfig(**SIZES)),):
        with pytest.raises(WeightsError, match=r"layer\.1\.output\.dense\.bias has 2 of 8 values"):
            module.params(altered_version(name, change), sizes)
    checkpoint = altered_version("VivitModel", change, copy="video")
    with pytest.raises(WeightsError, match=r"layer\.1\.output\.dense\.bias has 2 of 8 values"):
        video.params(checkpoint, video.video_config(checkpoint, VIDEO_SIZES))


@pytest.mark.parametrize("count", [10**9, 2**63])
@pytest.mark.parametrize("name", ["BertModel", "VivitModel", "VideoMAEModel"])
def test_more_layers_than_tensors_are_refused(altered_version, name, count):
    checkpoint = altered_version(name, num_hidden_layers=count)
    with pytest.raises(WeightsError, match=rf"too few for {count:,} layers"):
        if name == "BertModel":
            bert.text_config(checkpoint, TextConfig(**SIZES))
        else:
            video.video_config(checkpoint, VIDEO_SIZES)


def rewritten(path, kind, size):
    """Rewrite a tensor file with another number type, all bits zero."""
    held = safetensors.numpy.load_file(path)
    header, end = {}, 0
    for key, tensor in held.items():
        begin, end = end, end + size * tensor.size
        offsets = [begin, end]
        header[key] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_numbers_of_8_bits_are_refused(tmp_path, kind):
    copy = shutil.copytree(DATA / "5.24.0" / "BertModel", tmp_path / "copy")
    rewritten(copy / "model.safetensors", kind, 1)
    with pytest.raises(WeightsError, match=r"model\.safetensors has a number type"):
        hf_format.read(copy)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_numbers_of_16_bits_become_float32(tmp_path, kind):
    copy = shutil.copytree(DATA / "5.24.0" / "BertModel", tmp_path / "copy")
    rewritten(copy / "model.safetensors", kind, 2)
    assert {tensor.dtype for tensor in hf_format.read(copy).tensors.values()} == {
        np.dtype("float32")
    }


def test_a_deep_config_is_refused(tmp_path):
    copy = shutil.copytree(DATA / "5.24.0" / "BertModel", tmp_path / "copy")
    (copy / "config.json").write_text("[" * 100_000)
    with pytest.raises(WeightsError, match="is damaged"):
        hf_format.read(copy)
