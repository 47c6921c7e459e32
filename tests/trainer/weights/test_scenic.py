"""scenic's ViViT files, written in scenic's layout from the weights of a known encoder.

The names and the transpositions are those with which transformers converted the published file
(convert_vivit_flax_to_pytorch.py), backwards.
"""

import json
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import serialization

from trainer.configs.config import VideoConfig
from trainer.configs.overrides import override
from trainer.distributed.mesh import one_device
from trainer.method.train_step import init_state
from trainer.training.initialization import Start
from trainer.weights import hf_format, scenic, video
from trainer.weights.hf_format import WeightsError

VIVIT = pathlib.Path(__file__).parents[2] / "data" / "parity" / "vivit"
SIZES = VideoConfig(frames=4, resolution=32, grouping_after=(2,), layers=2, group_tokens=3)


def as_scenic_has_them(tensors, heads):
    """Tensors of the Hugging Face layout as scenic's tree of parameters."""

    def norm(name):
        return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}

    def dense(name):
        return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}

    def to_heads(name):
        flat = dense(name)
        width = len(flat["bias"])
        return {
            "kernel": flat["kernel"].reshape(width, heads, -1),
            "bias": flat["bias"].reshape(heads, -1),
        }

    def layer(name):
        out = dense(f"{name}.attention.output.dense")
        out["kernel"] = out["kernel"].reshape(heads, -1, len(out["bias"]))
        attention = {
            part: to_heads(f"{name}.attention.attention.{part}")
            for part in ("query", "key", "value")
        }
        return {
            "LayerNorm_0": norm(f"{name}.layernorm_before"),
            "MultiHeadDotProductAttention_0": attention | {"out": out},
            "LayerNorm_1": norm(f"{name}.layernorm_after"),
            "MlpBlock_0": {
                "Dense_0": dense(f"{name}.intermediate.dense"),
                "Dense_1": dense(f"{name}.output.dense"),
            },
        }

    projection = "embeddings.patch_embeddings.projection"
    return {
        "cls": tensors["embeddings.cls_token"],
        "embedding": {
            "kernel": tensors[f"{projection}.weight"].transpose(2, 3, 4, 1, 0),
            "bias": tensors[f"{projection}.bias"],
        },
        "Transformer": {
            "posembed_input": {"pos_embedding": tensors["embeddings.position_embeddings"]},
            "encoderblock_0": layer("encoder.layer.0"),
            "encoderblock_1": layer("encoder.layer.1"),
            "encoder_norm": norm("layernorm"),
        },
        "output_projection": {"kernel": np.ones((24, 5), np.float32), "bias": np.ones(5)},
    }


@pytest.fixture
def known():
    """scenic's tree of the parity checkpoint's weights."""
    heads = json.loads((VIVIT / "config.json").read_text())["num_attention_heads"]
    return as_scenic_has_them(safetensors.numpy.load_file(VIVIT / "model.safetensors"), heads)


@pytest.fixture
def write(tmp_path):
    def write(state):
        path = tmp_path / "checkpoint"
        path.write_bytes(serialization.to_bytes(state))
        return path

    return write


def read(path, sizes=SIZES):
    checkpoint = scenic.read(path)
    config = scenic.video_config(checkpoint, sizes)
    return scenic.params(checkpoint, config), config


@pytest.mark.parametrize("era", ["optimizer", "params"])
def test_it_is_the_encoder_that_the_hugging_face_layout_holds(era, known, write):
    # The state of flax.optim's days, and of optax's.
    state = {"params": known, "opt_state": {"0": known}, "global_step": 7}
    if era == "optimizer":
        state = {"optimizer": {"target": known, "state": {"step": 7}}, "global_step": 7}
    ours, config = read(write(state))
    same = hf_format.read(VIVIT)
    assert config == video.video_config(same, SIZES)
    jax.tree.map(np.testing.assert_array_equal, ours, video.params(same, config))


def test_positions_may_be_without_a_class_token(known, write):
    with_it, _ = read(write({"params": known}))
    del known["cls"]
    embedded = known["Transformer"]["posembed_input"]
    embedded["pos_embedding"] = embedded["pos_embedding"][:, 1:]
    without, _ = read(write({"params": known}))
    jax.tree.map(np.testing.assert_array_equal, without, with_it)


def test_every_tensor_that_does_not_fit_is_named(known, write):
    transformer = known["Transformer"]
    del transformer["encoderblock_1"]["MlpBlock_0"]["Dense_1"]["bias"]
    transformer["encoderblock_0"]["LayerNorm_1"]["scale"] = np.ones(23, np.float32)
    transformer["encoderblock_1"]["adapter"] = np.ones(3, np.float32)
    transformer["encoder_norm"]["bias"] = np.ones(24, np.int32)
    with pytest.raises(WeightsError) as caught:
        read(write({"params": known}))
    for told in (
        "Transformer.encoderblock_1.MlpBlock_0.Dense_1.bias is missing",
        "Transformer.encoderblock_0.LayerNorm_1.scale has shape (23,), expected (24,)",
        "Transformer.encoderblock_1.adapter is not a tensor of the model",
        "Transformer.encoder_norm.bias has type int32",
    ):
        assert told in str(caught.value)


def test_positions_of_other_clips_are_refused(known, write):
    longer = VideoConfig(frames=8, resolution=32, grouping_after=(2,), layers=2)
    with pytest.raises(WeightsError, match="positions for 8 tokens, but 8 frames of 32² make 16"):
        read(write({"params": known}), longer)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"weights": {}}, "neither optimizer.target nor params"),
        ({"optimizer": {"state": {}}}, "neither optimizer.target nor params"),
        ([1, 2], "neither optimizer.target nor params"),
        ({"params": {"cls": 3}}, "cls must be arrays"),
        (
            {"params": {"SpatialTransformer": {"a": np.ones(1)}, "cls": np.ones(1)}},
            "has no Transformer.encoderblock_0 but SpatialTransformer, cls",
        ),
        (
            {"params": {"Transformer": {"encoderblock_0": {"a": np.ones(1)}}}},
            "embedding.kernel is missing",
        ),
    ],
)
def test_other_states_are_refused(state, told, write):
    with pytest.raises(WeightsError, match=told):
        read(write(state))


def test_files_that_are_none_are_refused(known, write, tmp_path):
    path = write({"params": known})
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole + b"\x00", b"\x80\x04\x95pickle"):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="is damaged, or not a Flax file"):
            scenic.read(path)
    with pytest.raises(WeightsError, match="cannot be read: Is a directory"):
        scenic.read(tmp_path)


def test_a_run_can_start_from_it(small_config, known, write):
    config = override(small_config, ["video.layers=2", "video.grouping_after=2"])
    path = write({"params": known})
    start, same = Start(video=path), Start(video=VIVIT)
    config = start.configure(config)
    assert config == same.configure(config)
    fresh = init_state(config, one_device()).params
    jax.tree.map(np.testing.assert_array_equal, start.fill(fresh, config), same.fill(fresh, config))
    assert start.identity().keys() == same.identity().keys()
