"""Foreign checkpoints as initial weights, and this project's encoders as such checkpoints."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from trainer.configs.config import TextConfig, VideoConfig
from trainer.distributed.mesh import one_device
from trainer.method.train_step import init_state
from trainer.training.initialization import Start
from trainer.weights import bert, hf_format, param_mapping, video
from trainer.weights.hf_format import WeightsError

DATA = pathlib.Path(__file__).parents[2] / "data" / "parity"
# The sizes that the parity checkpoints have, where VideoConfig would not follow from them.
SIZES = VideoConfig(frames=4, resolution=32, grouping_after=(2,), layers=2, group_tokens=3)


def video_params(path, sizes=SIZES):
    checkpoint = hf_format.read(path)
    config = video.video_config(checkpoint, sizes)
    return video.params(checkpoint, config), config


def text_params(path):
    checkpoint = hf_format.read(path)
    config = bert.text_config(checkpoint, TextConfig(tokens=12, positions=12))
    return bert.params(checkpoint, config), config


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_settings_come_from_the_checkpoint():
    _, vivit = video_params(DATA / "vivit")
    _, videomae = video_params(DATA / "videomae")
    assert (vivit.gelu, vivit.pixel_mean) == ("tanh", (0.5, 0.5, 0.5))
    assert (videomae.gelu, videomae.pixel_mean) == ("erf", (0.485, 0.456, 0.406))
    for config in (vivit, videomae):
        assert (config.width, config.heads, config.mlp_width, config.patch) == (24, 3, 40, 16)
        assert (config.frames, config.group_tokens) == (4, 3)  # from the configuration


@pytest.mark.parametrize("name", ["vivit", "videomae"])
def test_positions_follow_frames_and_resolution(name):
    known, _ = video_params(DATA / name)
    larger = VideoConfig(frames=8, resolution=64, grouping_after=(2,), layers=2)
    params, config = video_params(DATA / name, larger)
    grid = params["positions"].reshape(4, 4, 4, 24)
    assert grid.size == config.windows * config.patches * 24
    # Sampled between the known ones, so the corners of the grid keep them.
    np.testing.assert_allclose(grid[0, 0, 0], known["positions"][0], atol=1e-6)
    np.testing.assert_allclose(grid[-1, -1, -1], known["positions"][-1], atol=1e-6)


@pytest.mark.parametrize("name", ["vivit", "videomae", "bert"])
def test_a_model_with_a_head_on_top_is_read_alike(altered, name):
    headed = altered(
        name,
        lambda tensors: (
            {f"{name}.{key}": value for key, value in tensors.items()}
            | {"cls.x" if name == "bert" else "classifier.weight": np.ones(3, np.float32)}
        ),
    )
    read = text_params if name == "bert" else video_params
    assert_same(read(headed)[0], read(DATA / name)[0])


def test_the_norms_of_old_bert_files_are_found(altered):
    def rename(tensors):
        return {
            key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for key, value in tensors.items()
        }

    assert_same(text_params(altered("bert", rename))[0], text_params(DATA / "bert")[0])


def test_every_tensor_that_does_not_fit_is_named(altered):
    def spoil(tensors):
        del tensors["encoder.layer.1.output.dense.bias"]
        tensors["encoder.layer.0.intermediate.dense.bias"] = np.zeros(41, np.float32)
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(24, np.float32)
        return tensors

    with pytest.raises(WeightsError) as caught:
        video_params(altered("vivit", spoil))
    for told in (
        "layer.1.output.dense.bias is missing",
        "layer.0.intermediate.dense.bias has shape (41,), expected (40,)",
        "layer.2.output.dense.bias is not a tensor of the model",
    ):
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("vivit", {"model_type": "swin"}, "model_type must be one of vivit, videomae"),
        ("vivit", {"hidden_act": "relu"}, "got 'relu'"),
        ("vivit", {"num_attention_heads": 5}, "width 24 must be divisible by heads 5"),
        ("vivit", {"tubelet_size": [2, 16, 8]}, "is not square"),
        ("vivit", {"tubelet_size": [0, 0, 0]}, "tubelet_size must be 1 or more, got 0"),
        ("vivit", {"num_frames": 5}, "num_frames 5 must be divisible by tubelet_size 2"),
        ("videomae", {"patch_size": 0}, "patch_size must be 1 or more, got 0"),
        ("videomae", {"image_size": -32}, "image_size must be 1 or more, got -32"),
        ("videomae", {"image_size": 40}, "image_size 40 must be divisible by patch_size 16"),
        ("videomae", {"use_mean_pooling": False}, "layernorm.weight is missing"),
        ("videomae", {"qkv_bias": 1}, "'qkv_bias' must be bool, got 1"),
        ("vivit", {"layer_norm_eps": 0}, "norm_eps must be above 0, got 0"),
        ("vivit", {"hidden_size": None}, "has no 'hidden_size'"),
        ("bert", {"hidden_act": "relu"}, "hidden_act is 'relu', but only 'gelu' is supported"),
        *(
            (
                "bert",
                {"model_type": name},
                f"model_type is '{name}', but only 'bert' is supported; ",
            )
            for name in ("roberta", "clip", "siglip_text_model")
        ),
        ("bert", {"max_position_embeddings": 8}, "tokens 12 must be at most positions 8"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(altered, name, settings, told):
    read = text_params if name == "bert" else video_params
    with pytest.raises(WeightsError, match=re.escape(told)):
        read(altered(name, **settings))


def test_settings_that_are_null_are_as_if_absent(altered):
    _, config = video_params(altered("videomae", layer_norm_eps=None, qkv_bias=None))
    assert config.norm_eps == 1e-12


def shards(path, index):
    """Split a checkpoint in two, with a given index."""
    held = safetensors.numpy.load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = sorted(held)
    for shard, some in (("a", names[::2]), ("b", names[1::2])):
        safetensors.numpy.save_file(
            {name: held[name] for name in some}, path / f"{shard}.safetensors"
        )
    where = {name: f"{'ab'[place % 2]}.safetensors" for place, name in enumerate(names)}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where | index}))
    return path


def test_shards_are_read_as_one(altered):
    split = shards(altered("bert"), {})
    assert_same(text_params(split)[0], text_params(DATA / "bert")[0])
    assert Start(text=split).identity().keys() == {"start.text"}
    before = Start(text=split).identity()
    held = safetensors.numpy.load_file(split / "b.safetensors")
    safetensors.numpy.save_file({name: x + 1 for name, x in held.items()}, split / "b.safetensors")
    assert Start(text=split).identity() != before


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ({"x": "../a.safetensors"}, "'../a.safetensors' is not a file name in its folder"),
        ({"x": "/a.safetensors"}, "'/a.safetensors' is not a file name in its folder"),
        ({"x": 3}, "3 is not a file name in its folder"),
        ({"x": ".."}, ".. is not supported, shards must be .safetensors"),
        ({"x": "c.safetensors"}, "has no c.safetensors, but its index lists it"),
        ({"x": "a.safetensors"}, "a.safetensors does not match the index: x"),
    ],
)
def test_shards_that_their_index_does_not_fit_are_refused(altered, index, told):
    with pytest.raises(WeightsError, match=re.escape(told)):
        hf_format.read(shards(altered("bert"), index))


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', "{"])
def test_an_index_of_shards_that_is_none_is_refused(altered, text):
    split = shards(altered("bert"), {})
    (split / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match=r"index\.json is damaged"):
        hf_format.read(split)


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        hf_format.read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(WeightsError, match=r"has no model\.safetensors.*pickles"):
        hf_format.read(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80" * 20)
    with pytest.raises(WeightsError, match="is damaged"):
        hf_format.read(tmp_path)
    shutil.copy(DATA / "bert" / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match="not a JSON object"):
        hf_format.read(tmp_path)


def test_exported_encoders_are_read_back_to_the_bit(small_config, tmp_path):
    params = init_state(small_config, one_device()).params
    hf_format.write(tmp_path / "video", *video.as_vivit(params["video"], small_config.video, 40))
    read, config = video_params(tmp_path / "video", small_config.video)
    assert config == small_config.video
    assert_same(read, {name: params["video"][name] for name in read})
    left = set(params["video"]) - set(read)
    assert left == {"group_tokens", "grouping_1", "norm_groups"}  # not in the layout

    sizes = small_config.text
    tensors = param_mapping.to_tensors(params["text"], bert.places(sizes))
    hf_format.write(tmp_path / "text", bert.settings(sizes), tensors)
    checkpoint = hf_format.read(tmp_path / "text")
    assert bert.text_config(checkpoint, sizes) == sizes
    assert_same(bert.params(checkpoint, sizes), params["text"])
