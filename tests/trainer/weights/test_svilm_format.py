"""A whole model as a folder of the Hugging Face layout; `tests/interop` loads it in PyTorch."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from trainer.cli.main import main
from trainer.runs import checkpoint
from trainer.runs.tensor_shapes import by_name
from trainer.weights import hf_format, param_mapping, svilm_format
from trainer.weights.hf_format import WeightsError


@pytest.fixture
def exported(untrained_run, tmp_path):
    out = tmp_path / "hf"
    assert main(["export", f"--run={untrained_run}", f"--out={out}", "--license=cc-by-4.0"]) == 0
    return out


def test_a_folder_has_the_whole_model(exported, untrained_run):
    run = checkpoint.load(untrained_run)
    tensors = safetensors.numpy.load_file(exported / "model.safetensors")
    assert len(tensors) == len(jax.tree.leaves(run.params))
    kernel = np.asarray(run.params["video"]["grouping_1"]["out"]["kernel"])
    np.testing.assert_array_equal(tensors["video.grouping_1.out.weight"], kernel.T)
    kernel = np.asarray(run.params["text"]["layer_1"]["attention"]["key"]["kernel"])
    heads = tensors["text.layer_1.attention.key.weight"].reshape(2, 8, 16)  # [h, k, D]
    np.testing.assert_array_equal(heads.transpose(2, 0, 1), kernel)

    read = svilm_format.read(exported)
    assert (read.config, read.step, read.averaged) == (run.config, run.step, run.averaged)
    assert read.tokenizer.difference(run.tokenizer) is None
    ours, theirs = by_name(run.params), by_name(read.params)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(theirs[name], leaf, name)


def test_an_export_replaces_an_earlier_one_and_nothing_else(exported, untrained_run, capsys):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert main(["export", f"--run={untrained_run}", f"--out={exported}"]) == 0
    after = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"README.md"}
    assert main(["export", f"--run={untrained_run}", f"--out={untrained_run}"]) == 1
    assert "contains a run, not a Hugging Face model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'"),
        ({"svilm": None}, "no 'svilm'"),
        ({"svilm": {"batch": "many"}}, "another release of svilm, or damaged"),
        ({"svilm_run": {"step": -1}}, "no valid step"),
    ],
)
def test_damaged_configurations(exported, change, message):
    config = json.loads((exported / "config.json").read_text()) | change
    (exported / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        svilm_format.read(exported)


def test_missing_and_unexpected_tensors_are_named(exported):
    tensors = safetensors.numpy.load_file(exported / "model.safetensors")
    tensors["other"] = tensors.pop("project_text.bias")
    safetensors.numpy.save_file(tensors, exported / "model.safetensors")
    with pytest.raises(WeightsError, match=r"project_text\.bias is missing.*other is not a tensor"):
        svilm_format.read(exported)


def test_a_scalar_stays_one(tmp_path):
    params = {"log_temperatures": {"group": np.float32(-2.5)}}
    places = list(svilm_format.places(params))
    tensors = param_mapping.to_tensors(params, places)
    hf_format.write(tmp_path, {"model_type": "svilm"}, tensors)
    read = param_mapping.to_params(hf_format.read(tmp_path), "", places, "")
    assert read["log_temperatures"]["group"].shape == ()
    assert read == params
