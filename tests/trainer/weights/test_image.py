"""Image encoders, inflated to tubelets, equal two versions of transformers on still clips.

tests/data/image_encoders/make.py made the folders and the answers.
"""

import dataclasses
import functools
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.trainer.weights.hidden_states import assert_close, video_states
from trainer.configs.config import Config, TextConfig, VideoConfig
from trainer.distributed.mesh import one_device
from trainer.method.models.video import VideoEncoder
from trainer.method.train_step import state_shapes
from trainer.runs.tensor_shapes import by_name
from trainer.training.initialization import Start
from trainer.weights import hf_format, image, param_mapping, video
from trainer.weights.hf_format import WeightsError

DATA = pathlib.Path(__file__).parents[2] / "data" / "image_encoders"
VERSIONS = ("4.57.6", "5.24.0")
NAMES = {
    **dict.fromkeys(("ViTModel", "ViTModel-without-bias", "ViTForImageClassification"), 8),
    **dict.fromkeys(("Dinov2Model", "Dinov2ForImageClassification"), 14),
    "Dinov2WithRegistersModel": 14,
    **dict.fromkeys(("CLIPVisionModel", "CLIPModel", "SiglipVisionModel", "SiglipModel"), 8),
}
SIZES = VideoConfig(frames=4, resolution=336, patch=1, layers=2, grouping_after=(2,))


@functools.cache
def answers(version):
    with np.load(DATA / version / "answers.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def altered_image(tmp_path):
    """Read a copy of a folder with other tensors or settings."""

    def alter(name, tensors=lambda tensors: tensors, **settings):
        copy = tmp_path / "altered"
        shutil.copytree(DATA / VERSIONS[-1] / name, copy)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | settings))
        held = safetensors.numpy.load_file(copy / "model.safetensors")
        safetensors.numpy.save_file(tensors(held), copy / "model.safetensors")
        return hf_format.read(copy)

    return alter


def still(pixels, frames):
    """A clip [B, T, H, W, C] that shows an image [B, C, H, W]."""
    return jnp.asarray(np.repeat(pixels.transpose(0, 2, 3, 1)[:, None], frames, axis=1))


def test_every_folder_is_tried():
    for version in VERSIONS:
        assert {path.name for path in (DATA / version).iterdir() if path.is_dir()} == {*NAMES}


@pytest.mark.parametrize(
    ("version", "name", "side"),
    [
        *((version, name, 3) for version in VERSIONS for name in NAMES),
        # With other numbers of patches, positions are resampled.
        *(
            (VERSIONS[-1], name, side)
            for name in NAMES
            if name.endswith("Model")
            for side in (2, 5)
        ),
    ],
)
def test_a_still_clip_has_the_hidden_states_of_its_image(version, name, side):
    known = answers(version)
    clip = still(known[f"pixels-{NAMES[name]}-{side}"], 4)
    ours = video_states(DATA / version / name, clip, tubelet=2)
    windows = np.asarray(ours).reshape(2, 2, side * side, 8)
    for window in (0, 1):
        assert_close(windows[:, window], known[f"{name}-{side}"])


def test_the_center_kernel_sees_the_middle_frame_alone():
    known = answers(VERSIONS[-1])
    clip = np.array(still(known["pixels-8-3"], 3))
    clip[:, [0, 2]] = 7
    folder = DATA / VERSIONS[-1] / "ViTModel"
    ours = video_states(folder, jnp.asarray(clip), 3, "center")
    assert_close(ours, known["ViTModel-3"])


def test_prefix_tokens_attend_as_group_tokens_do():
    # Before the first grouping block group tokens are plain tokens, so two may be a class token.
    sizes = {"width": 12, "heads": 2, "mlp_width": 8, "layers": 1, "norm_before": True}
    config = VideoConfig(
        **sizes, frames=4, resolution=16, patch=8, grouping_after=(1,), group_tokens=5
    )
    key = jax.random.key(0)
    pixels = jax.random.normal(key, (2, 4, 16, 16, 3))
    with_prefix = VideoEncoder(dataclasses.replace(config, group_tokens=3, prefix_tokens=1))
    params = jax.jit(with_prefix.init)(key, pixels, None)["params"]
    assert params["prefix_tokens"].shape == (2, 1, 12)
    found = jax.jit(with_prefix.apply)({"params": params}, pixels, None)
    prefix = np.asarray(params.pop("prefix_tokens"))[:, 0]
    prefix = prefix - prefix.mean(axis=1, keepdims=True)  # norm_before has scale 1 and bias 0
    prefix /= np.sqrt((prefix**2).mean(axis=1, keepdims=True) + 1e-6)
    params["group_tokens"] = np.concatenate([prefix, params["group_tokens"]])
    expected = jax.jit(VideoEncoder(config).apply)({"params": params}, pixels, None)
    assert_close(found.tokens, expected.tokens)
    assert found.groups.shape == (2, 3, 12)
    assert found.assignment.hard.shape == (2, 3, 8)


@pytest.mark.parametrize("name", ["ViTModel", "Dinov2WithRegistersModel", "CLIPModel"])
def test_a_run_starts_from_an_image_encoder(name):
    folder = DATA / VERSIONS[-1] / name
    small = {"layers": 1, "width": 8, "heads": 2, "mlp_width": 8, "vocabulary": 20, "tokens": 4}
    resolution = 28 if "Dino" in name else 24
    sizes = VideoConfig(frames=4, resolution=resolution, patch=1, layers=2, grouping_after=(2,))
    config = Start(video=folder).configure(Config(video=sizes, text=TextConfig(**small)))
    fresh = state_shapes(config, one_device()).params
    filled = Start(video=folder).fill(fresh, config)
    left = {
        key.split(".")[0]
        for key, leaf in by_name(filled["video"]).items()
        if not isinstance(leaf, np.ndarray)
    }
    assert left == {"group_tokens", "grouping_2", "norm_groups"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ViTForImageClassification", "classifier"),
        ("Dinov2Model", "embeddings.mask_token"),
        ("CLIPModel", "logit_scale, text_model, text_projection, visual_projection"),
        ("SiglipModel", "head, logit_bias, logit_scale, text_model"),
    ],
)
def test_unused_parts_of_image_encoders_are_named(name, told):
    names = image.unused_parts(hf_format.read(DATA / VERSIONS[-1] / name))
    assert ", ".join(param_mapping.parts(names)) == told


def test_settings_that_a_section_leaves_out_are_those_of_its_class(altered_image):
    checkpoint = altered_image("SiglipModel", vision_config={"num_hidden_layers": 2})
    config = image.video_config(checkpoint, SIZES)
    assert (config.width, config.heads, config.patch, config.gelu) == (768, 12, 16, "tanh")
    with pytest.raises(WeightsError, match=r"has shape \(8, 8\), expected \(768, 768\)"):
        image.params(checkpoint, config)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("Dinov2Model", {"use_swiglu_ffn": True}, "use_swiglu_ffn is true"),
        ("Dinov2Model", {"mlp_ratio": float("inf")}, "mlp_ratio inf must be a number"),
        ("ViTModel", {"hidden_act": "relu"}, "hidden_act must be one of"),
        ("ViTModel", {"patch_size": 32}, "patch_size 32 must be in 1 … image_size 24"),
        ("ViTModel", {"layer_norm_eps": None}, "has no 'layer_norm_eps'"),
        ("ViTModel", {"num_attention_heads": 3}, "width 8 must be divisible by heads 3"),
        ("CLIPModel", {"vision_config": 3}, "'vision_config' must be an object"),
        ("Dinov2WithRegistersModel", {"num_register_tokens": 4}, "has shape (1, 3, 8), expected"),
        ("ViTModel", {"image_size": 32}, "has shape (1, 10, 8), expected (1, 17, 8)"),
    ],
)
def test_unsupported_image_encoders_are_refused(altered_image, name, settings, told):
    with pytest.raises(WeightsError, match=re.escape(told)):
        checkpoint = altered_image(name, **settings)
        image.params(checkpoint, image.video_config(checkpoint, SIZES))


def test_tensors_of_image_encoders_that_do_not_fit_are_named(altered_image):
    def spoil(tensors):
        scale = next(name for name in tensors if name.endswith("1.layer_scale2.lambda1"))
        tensors[scale] = np.zeros(9, np.float32)
        del tensors["layernorm.bias"]
        return tensors | {"extra": np.zeros(1, np.float32)}

    checkpoint = altered_image("Dinov2Model", spoil)
    with pytest.raises(WeightsError) as caught:
        image.params(checkpoint, image.video_config(checkpoint, SIZES))
    for told in (
        "layer.1.layer_scale2.lambda1 has shape (9,), expected (8,)",
        "layernorm.bias is missing",
        "extra is not a tensor of the model",
    ):
        assert told in str(caught.value)


@pytest.mark.parametrize("field", [{"prefix_tokens": 1}, {"norm_before": True}])
def test_an_encoder_of_image_weights_is_not_exported_as_vivit(field):
    with pytest.raises(WeightsError, match=f"{next(iter(field))}={next(iter(field.values()))}"):
        video.as_vivit({}, dataclasses.replace(SIZES, **field), 256)


def test_pixels_are_scaled_as_the_processor_of_transformers_5_says(altered_image):
    checkpoint = altered_image("CLIPModel")
    assert image.video_config(checkpoint, SIZES).pixel_mean == (0.48145466, 0.4578275, 0.40821073)
    path = checkpoint.folder / "processor_config.json"
    (checkpoint.folder / "preprocessor_config.json").write_text('{"image_mean": [0.3, 0.3, 0.3]}')
    for values, mean in (({"processor_class": "CLIPProcessor"}, 0.3), ({"image_mean": 0.4}, 0.4)):
        nested = values if "processor_class" in values else {"image_processor": values}
        path.write_text(json.dumps(nested))
        config = image.video_config(hf_format.read(checkpoint.folder), SIZES)
        assert config.pixel_mean == (mean, mean, mean)
    for damaged in ('{"image_processor": 3}', "[]"):
        path.write_text(damaged)
        with pytest.raises(WeightsError, match=r"processor_config\.json is damaged"):
            hf_format.read(checkpoint.folder)
