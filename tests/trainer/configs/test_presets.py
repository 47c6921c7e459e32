import dataclasses
import json
import pathlib
from functools import partial

import jax
import numpy as np
import pytest

from trainer.cli.main import main
from trainer.configs import PRESETS, published
from trainer.configs.config import Config
from trainer.configs.overrides import OverrideError, override
from trainer.data.types import Batch
from trainer.distributed.mesh import one_device
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import batch_shapes, init_state, state_shapes, train_step
from trainer.weights import bert, video
from trainer.weights.hf_format import Checkpoint


def random_batch(config):
    rng = np.random.default_rng(0)
    video, clips, nouns = config.video, config.batch, config.input.nouns
    tokens = config.text.tokens
    frames = (clips, video.frames, video.resolution, video.resolution, 3)

    def ids(*shape):
        return rng.integers(0, config.text.vocabulary, (*shape, tokens), np.int32)

    return Batch(
        frames=rng.integers(0, 256, frames, np.uint8),
        caption_ids=ids(clips),
        caption_mask=np.ones((clips, tokens), bool),
        noun_ids=ids(clips, nouns),
        noun_mask=np.ones((clips, nouns, tokens), bool),
        noun_valid=np.ones((clips, nouns), bool),
        index=np.arange(clips, dtype=np.int32),
    )


def step(state, config):
    scalars = run_scalars(config, 10)
    return train_step(state, random_batch(config), scalars, config=config, mesh=one_device())


def test_the_papers_preset_makes_a_step_at_full_size():
    """Trace the model: computing 2.9 TFLOP per clip would take minutes."""
    config, mesh = PRESETS["paper"], one_device()
    state = state_shapes(config, mesh)
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(state.params[name]))
        for name in ("video", "text")
    }
    # BERT-base without its pooler, as published; ViT-B/16×2 has 88 M, three grouping blocks 21 M.
    assert sizes["text"] == 108_891_648
    assert 105e6 < sizes["video"] < 115e6

    after, metrics = jax.eval_shape(
        partial(train_step, config=config, mesh=mesh),
        state,
        batch_shapes(config, mesh),
        run_scalars(config, 10),
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert shapes_and_types(after) == shapes_and_types(state)
    assert {"temporal", "grounding", "contrast", "loss"} < metrics.keys()


@pytest.mark.parametrize(
    ("name", "image_vit"), [("paper-large", 303_301_632), ("paper-huge", 630_764_800)]
)
def test_larger_presets_have_the_published_encoders(name, image_vit):
    """ViT-L/16's and ViT-H/14's parameters without their head, and BERT-large's without pooler."""
    config = PRESETS[name]
    shapes = state_shapes(config, one_device()).params

    def count(*parts):
        return sum(leaf.size for leaf in jax.tree.leaves(parts))

    assert count(shapes["text"]) == 334_092_288
    video, width, patch = shapes["video"], config.video.width, config.video.patch
    layers = [video[f"layer_{layer}"] for layer in range(1, config.video.layers + 1)]
    # Of one image, not of tubelets: its projection, its positions and class token.
    embedded = (3 * patch**2 + 1) * width + (config.video.patches + 2) * width
    assert count(*layers, video["norm"]) + embedded == image_vit


# What the published config.json files say that a model is made by.
VIDEOMAE_SMALL = {
    "model_type": "videomae",
    "hidden_act": "gelu",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "num_frames": 16,
    "tubelet_size": 2,
    "patch_size": 16,
    "qkv_bias": True,
    "use_mean_pooling": True,
}
VIVIT_BASE = {
    "model_type": "vivit",
    "hidden_act": "gelu_fast",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "num_frames": 32,
    "tubelet_size": [2, 16, 16],
    "qkv_bias": True,
}
MINILM = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
BERT_BASE = MINILM | {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
}


@pytest.mark.parametrize(
    ("name", "video_settings", "text_settings"),
    [("small", VIDEOMAE_SMALL, MINILM), ("base-16", VIVIT_BASE, BERT_BASE)],
)
def test_presets_are_of_the_published_sizes(name, video_settings, text_settings):
    """Starting from their published weights does not change the presets."""
    config = PRESETS[name]
    of_video, of_text = published_as(video_settings), published_as(text_settings)
    assert video.video_config(of_video, config.video) == config.video
    assert bert.text_config(of_text, config.text) == config.text


def published_as(settings):
    tensors = {str(number): np.zeros(1) for number in range(99)}
    return Checkpoint(pathlib.Path("weights"), settings, {}, tensors)


def test_base_16_takes_videomae_too():
    settings = VIDEOMAE_SMALL | {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    ours = PRESETS["base-16"].video
    theirs = video.video_config(published_as(settings), ours)
    changed = {"norm_eps", "gelu", "pixel_mean", "pixel_std"}  # of no shape
    kept = {name: getattr(ours, name) for name in changed}
    assert dataclasses.replace(theirs, **kept) == ours


def test_wrong_heads_of_a_conversion_give_a_warning():
    assert video.config_warning(published_as(VIDEOMAE_SMALL)) is None
    assert video.config_warning(published_as(VIVIT_BASE)) is None
    told = video.config_warning(published_as(VIDEOMAE_SMALL | {"num_attention_heads": 16}))
    assert told is not None
    assert "num_attention_heads is 16" in told
    assert "correct it to 6" in told


def test_base_16_is_the_papers_run_with_16_frames():
    assert PRESETS["base-16"].video.frames == 16
    ours = override(PRESETS["base-16"], ["video.frames=32"])
    assert dataclasses.replace(ours, compute=PRESETS["paper"].compute) == PRESETS["paper"]


def test_small_has_the_published_number_of_parameters():
    params = state_shapes(PRESETS["small"], one_device()).params
    # all-MiniLM-L6-v2 without its pooler; VideoMAE's ViT-S has 22 M, three grouping blocks 5 M.
    assert sum(leaf.size for leaf in jax.tree.leaves(params["text"])) == 22_565_376
    assert 26e6 < sum(leaf.size for leaf in jax.tree.leaves(params["video"])) < 29e6


@pytest.mark.parametrize("name", PRESETS)
def test_presets_learn_at_the_papers_rate_for_their_batch(name):
    config = PRESETS[name]
    if config.optimizer.name == "sgd":
        assert config.optimizer.learning_rate == pytest.approx(0.1 * config.batch / 1024)


@pytest.mark.parametrize(
    ("preset", "given", "told"),
    [
        ("small", (False, False), ["--video-weights videomae-small", "--text-weights all-MiniLM"]),
        ("small", (True, False), ["--text-weights all-MiniLM", "its text encoder starts"]),
        ("small", (True, True), None),
        ("base-16", (False, True), ["--video-weights vivit-b-16x2-kinetics400", "its video"]),
        ("paper-huge", (False, True), None),  # there is no video encoder of its size
        ("tiny", (False, False), None),
    ],
)
def test_missing_published_weights_are_named(preset, given, told):
    said = published.describe_missing(preset, video=given[0], text=given[1])
    if told is None:
        assert said is None
    else:
        assert said is not None
        assert all(part in said for part in [f"preset {preset} expects published weights", *told])


def test_a_run_names_its_presets_published_weights(tmp_path, capsys):
    words = ["pretrain", f"--snapshot={tmp_path}", f"--out={tmp_path / 'run'}"]
    assert main([*words, "--preset=small"]) == 1
    meant, error = capsys.readouterr().err.splitlines()
    assert meant.startswith("svilm-train: preset small expects published weights, --video")
    assert "manifest.json" in error
    assert main([*words, "--preset=tiny"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_help_describes_each_preset(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert not [name for name in PRESETS if f"{name}: " not in help_text]
    assert set(published.WEIGHTS) < set(PRESETS)


def shapes_and_types(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def test_the_papers_preset_makes_a_step_with_a_layer_each_and_fewer_pixels():
    config = override(
        PRESETS["paper"],
        [
            "batch=2",
            "cut_and_paste.pair_group=2",
            "video.resolution=64",
            "video.layers=1",
            "video.grouping_after=1",
            "text.layers=1",
        ],
    )
    state = init_state(config, mesh=one_device())
    state, metrics = step(state, config)
    assert int(state.step) == 1
    assert not [name for name, value in metrics.items() if not np.isfinite(value)]
    # Two clips, random weights: the cross-entropy of a coin in both directions, twice.
    assert 1 < metrics["contrast"] < 3


def test_the_papers_preset_matches_the_paper():
    config = PRESETS["paper"]
    assert (config.batch, config.epochs, config.optimizer.name) == (1024, 10, "sgd")
    assert config.video.windows * config.video.patches == 3136
    assert config.cut_and_paste.pair_group == 8
    # … and on what it is silent: how clips pair up, and how it computes.
    silent = {name: getattr(Config(), name) for name in ("cut_and_paste", "compute")}
    assert dataclasses.replace(config, **silent) == Config()
    assert (config.compute.dtype, config.compute.remat) == ("bfloat16", "block")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    assert Config.from_json(PRESETS[name].to_json()) == PRESETS[name]


def test_settings_take_the_type_of_their_field():
    config = override(
        Config(),
        [
            "batch=64",
            "max_steps=10",
            "optimizer.learning_rate=1e-3",
            "optimizer.name=adamw",
            "input.flip=false",
            "input.scale=1,1.5",
            "video.grouping_after=3, 12",
            "video.attention_block=none",
        ],
    )
    assert config.batch == 64
    assert config.max_steps == 10
    assert config.optimizer.learning_rate == 0.001
    assert config.optimizer.name == "adamw"
    assert config.input.flip is False
    assert config.input.scale == (1.0, 1.5)
    assert config.video.grouping_after == (3, 12)
    assert config.video.attention_block is None
    assert Config() == override(config, [f"{k}={v}" for k, v in flat_defaults().items()])


def flat_defaults():
    """Config's defaults as a user would write them."""

    def written(value):
        if isinstance(value, bool) or value is None:
            return str(value).lower()
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def flat(section, prefix=""):
        for field in dataclasses.fields(section):
            value = getattr(section, field.name)
            if dataclasses.is_dataclass(value):
                yield from flat(value, f"{prefix}{field.name}.")
            else:
                yield f"{prefix}{field.name}", written(value)

    return dict(flat(Config()))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch", "not of the form field=value"),
        ("bach=64", r"no field 'bach'; it has video, text, .*batch"),
        ("video.wdth=64", r"video has no field 'wdth'; it has frames, .*width"),
        ("vidio.width=64", "no field 'vidio'"),
        ("video=64", "video is a section: set one of video.frames"),
        ("batch.size=64", "batch has no fields"),
        ("batch=many", "batch takes an integer, got 'many'"),
        ("batch=64.5", "batch takes an integer"),
        ("optimizer.learning_rate=nan", "learning_rate takes a finite number, got 'nan'"),
        ("optimizer.name=adam", "optimizer.name takes sgd or adamw or muon, got 'adam'"),
        ("input.flip=yes", "input.flip takes true or false"),
        ("input.scale=1", "input.scale takes 2 values"),
        ("video.heads=0", "heads must be 1 or more"),
        ("log_every=0", "log_every must be 1 or more"),
        ("video.frames=33", "video: frames 33 must be divisible by tubelet 2"),
        ("batch=3", "batch 3 must be divisible by pair_group 2"),
        ("text.tokens=2", "tokens must be 3 or more"),
        ("video.frames=2", "but cut-and-paste needs two"),
        ("input.scale=1.3,0.9", "scale must be two numbers above 0"),
        ("input.grey_probability=2", "grey_probability must be 0 or more and 1 or less, got 2"),
        ("cut_and_paste.from_step=-3", "from_step must be 0 or more, got -3"),
        ("loss.group_temperature=0", "group_temperature must be 0.01 or more"),
        ("loss.contrast_weight=-1", "contrast_weight must be 0 or more, got -1"),
        ("optimizer.warmup_share=1", "warmup_share must be 0 or more and below 1, got 1"),
        ("optimizer.momentum=1", "momentum must be 0 or more and below 1, got 1"),
        ("optimizer.clip_norm=0", "clip_norm must be above 0, got 0: none disables clipping"),
        ("video.norm_eps=0", "video: norm_eps must be above 0, got 0"),
        ("text.norm_eps=-1", "text: norm_eps must be above 0, got -1"),
        ("video.pixel_std=0.5,0,0.5", "pixel_std must be above 0, got 0"),
        ("input.brightness=-0.1", "brightness must be 0 or more, got -0.1"),
        ("input.contrast=-1", "contrast must be 0 or more"),
        ("input.saturation=-1", "saturation must be 0 or more"),
        ("input.hue=-1", "hue must be 0 or more"),
        ("seed=-1", "seed must be in 0 … 4294967295, got -1"),
        ("seed=4294967296", "seed must be in 0 … 4294967295, got 4294967296"),
        ("compute.attention=cudnn", "cudnn does not support float32: set compute.dtype=bfloat16"),
        ("compute.remat=all", "remat takes none or matmuls or attention or block, got 'all'"),
        ("optimizer.learning_rate=-1", "learning_rate must be above 0, got -1"),
        ("optimizer.learning_rate=0", "learning_rate must be above 0, got 0"),
        ("optimizer.learning_rate=1e-50", "learning_rate must be above 0, got 1e-50"),
        ("spike.gradient_norm=0", "gradient_norm must be above 0, got 0"),
    ],
)
def test_a_wrong_setting_is_refused(setting, message):
    with pytest.raises(OverrideError, match=message):
        override(Config(), [setting])


def test_a_run_without_any_loss_is_refused():
    weights = [f"loss.{name}_weight=0" for name in ("temporal", "grounding", "contrast")]
    with pytest.raises(OverrideError, match="all three weights are 0"):
        override(Config(), weights)
    assert override(Config(), weights[:2]).loss.contrast_weight == 1


def test_a_number_that_is_none_is_refused_in_a_file_too():
    values = json.loads(Config().to_json())
    for number in (float("nan"), float("inf")):
        values["optimizer"]["learning_rate"] = number
        with pytest.raises(ValueError, match="learning_rate must be finite"):
            Config.from_json(json.dumps(values))


def test_settings_that_go_together_may_come_in_any_order():
    settings = ["video.heads=5", "video.width=20"]
    assert override(Config(), settings) == override(Config(), settings[::-1])
