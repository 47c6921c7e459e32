"""transformers reads exports as intended: pixels, ids, hidden states.

tests/data/transformers/export-VERSION.json has what that version made of the folder of
`write_export`; tests/data/transformers/read_export.py wrote it.
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.trainer.weights.hidden_states import assert_close, text_states, video_states
from trainer.configs.config import Config
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_settings import SPECIAL, Added, Settings
from trainer.distributed.mesh import one_device
from trainer.method.train_step import state_shapes
from trainer.weights import bert, hf_format, param_mapping, video
from trainer.weights.hf_format import WeightsError

DATA = pathlib.Path(__file__).parents[2] / "data" / "transformers"
READINGS = [json.loads(path.read_text()) for path in sorted(DATA.glob("export-*.json"))]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHORT_SIDE = 40
VIDEO = dataclasses.replace(
    Config().video,
    **{"frames": 4, "resolution": 30, "tubelet": 2, "patch": 10, "width": 8, "heads": 2},
    **{"layers": 2, "mlp_width": 12, "grouping_after": (2,), "group_tokens": 3},
    **{"pixel_mean": MEAN, "pixel_std": STD},
)
TEXT = dataclasses.replace(
    Config().text,
    **{"vocabulary": 32, "tokens": 12, "positions": 16, "width": 8, "heads": 2},
    **{"layers": 2, "mlp_width": 12},
)
PIECES = [*SPECIAL, *"abcdefghijklmnop", "##a", "##b", "##c", "The", "the", "##e", "é", "猫"]
ADDED = (Added("<cat>", 29), Added("newword", 30, single_word=True))
CAPTIONS = (
    *("The abc", "the <cat> newword newwords", "é e\u0301 猫猫 THE"),
    "a b c d e f g h i j k l m n o p",
)
TOKENISER = Tokenizer(PIECES, Settings(lowercase=False, added=ADDED))


def write_export(out):
    """Write a run's export with parameters derived from their positions."""
    config = dataclasses.replace(Config(), video=VIDEO, text=TEXT)
    shapes = state_shapes(config, one_device()).params
    leaves = [
        0.3 * np.sin(number + np.arange(leaf.size)).astype(np.float32).reshape(leaf.shape)
        for number, leaf in enumerate(jax.tree.leaves(shapes))
    ]
    params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    hf_format.write(out / "video", *video.as_vivit(params["video"], VIDEO, SHORT_SIDE))
    tensors = param_mapping.to_tensors(params["text"], bert.places(TEXT))
    hf_format.write(out / "text", bert.settings(TEXT), tensors)
    TOKENISER.save(out / "text" / "vocab.txt", TEXT.tokens)
    (out / "captions.json").write_text(json.dumps(CAPTIONS))
    np.save(out / "frames.npy", frames())


def frames():
    """Frames without scaling, which differs between libraries."""
    time, y, x, colour = np.ogrid[:4, :SHORT_SIDE, :57, :3]
    return ((time * 31 + y * 7 + x * 13 + colour * 101) % 256).astype(np.uint8)


def ours():
    """The crop at the frames' centre, normalized: [T, H, W, 3]."""
    cut = frames()[:, 5:35, 13:43]
    return ((cut / 255 - np.asarray(MEAN)) / np.asarray(STD)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    write_export(out)
    return out


def test_versions_that_read_it():
    versions = [reading["transformers"] for reading in READINGS]
    assert versions == ["4.44.2", "4.57.6", "5.18.0", "5.24.0", "5.8.1"]


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading["transformers"])
def test_transformers_reads_the_export_as_it_is_meant(exported, reading):
    # What it read is what we write.
    for name, text in reading["files"].items():
        assert json.loads((exported / name).read_text()) == json.loads(text), name
    for processor in reading["processors"]:
        assert processor["shape"] == [1, 4, 3, 30, 30]
        theirs = np.asarray(processor["values"]).transpose(0, 2, 3, 1)
        assert_close(ours()[:, ::9, ::9], theirs)
    ids, mask = TOKENISER.encode(CAPTIONS, TEXT.tokens)
    assert reading["ids"] == ids.tolist()
    assert reading["attention_mask"] == mask.astype(int).tolist()
    assert reading["model_max_length"] == TEXT.tokens
    assert reading["models"] == ["VivitModel", "BertModel"]


def test_hidden_states_are_those_of_transformers(exported):
    of_video = video_states(exported / "video", jnp.asarray(ours()[None]))[0]
    ids, mask = TOKENISER.encode(CAPTIONS, TEXT.tokens)
    of_text = text_states(exported / "text", jnp.asarray(ids), jnp.asarray(mask))[0]
    for reading in READINGS:
        assert_close(of_video, reading["video_states"])
        assert_close(of_text[mask[0]], reading["text_states"])


def test_the_export_is_read_back(exported):
    checkpoint = hf_format.read(exported / "video")
    assert video.video_config(checkpoint, VIDEO) == VIDEO
    assert Tokenizer.from_vocabulary(exported / "text").difference(TOKENISER) is None


@pytest.mark.parametrize(
    ("settings", "black", "white"),
    [
        ({}, -1.0, 1.0),  # what ViViT was trained on
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, -1.0, 1.0),
        ({"rescale_factor": 1 / 255, "image_mean": 0.0, "image_std": 1.0}, 0.0, 1.0),
        ({"rescale_factor": 1 / 255, "do_normalize": False}, 0.0, 1.0),
        ({"rescale_factor": 1 / 127.5, "offset": True, "do_normalize": False}, -1.0, 1.0),
        ({"rescale_factor": 1 / 127.5, "offset": True}, -1.0, 1.0),  # as published
        ({"rescale_factor": 1 / 127.5, "offset": True, "image_mean": [0, 0, 0]}, -2.0, 2.0),
        ({"do_rescale": False, "image_mean": 0, "image_std": 1}, 0.0, 255.0),
        ({"rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1}, -1.0, 1.0),
        ({"video_processor_type": "VivitVideoProcessor", "image_mean": 0}, -2.0, 2.0),
        (
            {"video_processor_type": "VivitVideoProcessor", "image_mean": 0, "image_std": 1},
            -1.0,
            1.0,
        ),
    ],
)
@pytest.mark.parametrize("file", ["preprocessor_config.json", "video_preprocessor_config.json"])
def test_every_link_of_a_processor_counts(tmp_path, settings, black, white, file):
    config = pixels_of(tmp_path, settings, file)
    mean, std = np.asarray(config.pixel_mean), np.asarray(config.pixel_std)
    np.testing.assert_allclose((0 - mean) / std, [black] * 3, atol=1e-6)
    np.testing.assert_allclose((1 - mean) / std, [white] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"image_mean": [0.5]}, "'image_mean' must be 3 numbers, got [0.5]"),
        ({"image_std": 0}, "'image_std' must be above 0, got 0"),
        ({"image_std": "a"}, "'image_std' must be 3 numbers, got 'a'"),
        ({"rescale_factor": "1/255"}, "'rescale_factor' must be a number, got '1/255'"),
        ({"rescale_factor": 0}, "'rescale_factor' must be above 0, got 0"),
        ({"offset": 1}, "'offset' must be true or false, got 1"),
        ({"do_flip_channel_order": True}, "'do_flip_channel_order' must be false"),
    ],
)
@pytest.mark.parametrize("file", ["preprocessor_config.json", "video_preprocessor_config.json"])
def test_processors_that_are_refused(tmp_path, settings, told, file):
    with pytest.raises(WeightsError) as caught:
        pixels_of(tmp_path, settings, file)
    assert f"/{file}: {told}" in str(caught.value)


def pixels_of(tmp_path, settings, file):
    source = DATA / "5.24.0" / "VivitModel"
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    (tmp_path / file).write_text(json.dumps(settings))
    sizes = dataclasses.replace(VIDEO, resolution=16, patch=8)
    return video.video_config(hf_format.read(tmp_path), sizes)
