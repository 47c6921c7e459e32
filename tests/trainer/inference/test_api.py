import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from protos import contract
from trainer import progress
from trainer.data.cpu_tensorflow import tf
from trainer.data.snapshot import Snapshot
from trainer.inference import api, encoder, video_files
from trainer.inference.encoder import embed_clips, frames_of
from trainer.inference.video_files import VideoError
from trainer.runs.checkpoint import CheckpointError
from trainer.runs.run_folder import RunError


def compiled_programs():
    # Jitted functions have it; jax's stubs do not.
    return encoder._encode_clips._cache_size()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module")
def model(untrained_run):
    return api.load(untrained_run)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return Snapshot.open(write_snapshot_at(folder, clips=3, height=18, width=24).folder)


@pytest.fixture(scope="module")
def frames(model, snapshot):
    return frames_of(snapshot, range(3), model.config)


def test_a_run_or_one_of_its_checkpoints_is_loaded(untrained_run, model):
    texts = ["a red ring", "Look: a disc"]
    same = api.load(untrained_run / "checkpoints" / "0").embed_texts(texts)
    np.testing.assert_array_equal(same, model.embed_texts(texts))
    assert model.step == 0
    with pytest.raises(RunError, match=r"checkpoints/7 is not a training run"):
        api.load(untrained_run / "checkpoints" / "7")


def test_a_checkpoint_has_all_that_it_needs(untrained_run, model, tmp_path):
    shutil.copytree(untrained_run / "checkpoints" / "0", tmp_path / "0")
    copied = api.load(tmp_path / "0")
    assert copied.config == model.config
    np.testing.assert_array_equal(copied.embed_texts(["a ring"]), model.embed_texts(["a ring"]))
    (tmp_path / "0" / "vocabulary" / "metadata").write_text("{")
    with pytest.raises(CheckpointError, match="0 is damaged"):
        api.load(tmp_path / "0")


def test_frames_are_embedded_as_evaluation_embeds_them(model, snapshot, frames):
    _, clips = embed_clips(snapshot, model._encoder, lambda *_: None)
    embedded = model.embed_videos(frames)
    assert embedded.shape == (3, model.config.joint_width)
    np.testing.assert_allclose(embedded, clips.clip, atol=1e-6)
    # More than are encoded at once.
    many = model.embed_videos(np.concatenate([frames] * 12))
    np.testing.assert_allclose(many, np.concatenate([clips.clip] * 12), atol=1e-6)


def test_one_size_is_compiled_for_whatever_the_number_of_clips(model, frames):
    model.embed_videos(frames[:1])
    compiled = compiled_programs()
    for count in (2, 3, 5, 8, 9, 17):
        assert len(model.embed_videos(frames[np.arange(count) % 3])) == count
    model.ground(frames[0], "red ring")
    assert compiled_programs() == compiled


def test_a_nouns_heat_map_is_its_groups_assignment(model, frames):
    heat = model.ground(frames[1], "red ring")
    video = model.config.video
    assert heat.shape == (video.windows, 2, 2)
    clip = model._encoder.clips(frames[1:2])
    (noun,) = model.embed_texts([contract.PROMPT_TEMPLATES[0].format("red ring")])
    group = max(range(video.group_tokens), key=lambda m: float(clip.groups[0, m] @ noun))
    flat = heat.reshape(-1)
    for token in range(len(flat)):
        belongs = clip.group_of[0, token] == group
        assert flat[token] == (clip.share[0, token] if belongs else 0)


@pytest.mark.parametrize(
    ("videos", "error", "message"),
    [
        (
            np.zeros((1, 4, 16, 16, 3)),
            ValueError,
            r"clip 0 must be uint8 RGB frames .* got float64",
        ),
        (np.zeros((1, 4, 16, 16, 4), np.uint8), ValueError, r"got uint8 \[4, 16, 16, 4\]"),
        (np.zeros((1, 0, 16, 16, 3), np.uint8), ValueError, r"got uint8 \[0, 16, 16, 3\]"),
        (
            np.zeros((1, 4, 2, 1 << 16, 3), np.uint8),
            ValueError,
            "65536 × 2 pixels, too many: scale",
        ),
        (np.zeros((0, 4, 16, 16, 3), np.uint8), ValueError, "array of frames has no clip"),
        ([], ValueError, "a list of one or more paths"),
        ("a.mp4", ValueError, "or of arrays of frames, got 'a.mp4'"),
        (["none.mp4"], VideoError, "video file none.mp4 does not exist"),
        ([np.zeros((8, 8, 3), np.uint8)], ValueError, r"clip 0 must be .* got uint8 \[8, 8, 3\]"),
        (np.zeros((4, 16, 16, 3), np.uint8), ValueError, r"clip 0 must be .* \[16, 16, 3\]"),
        (np.zeros((), np.uint8), ValueError, "or of arrays of frames, got"),
        (("a.mp4", 3.0, 9.5), ValueError, "a list of one or more paths or spans"),
        ([("a.mp4", 3.0)], ValueError, r"a span must be \(path, start, end\) in seconds, got"),
        ([("a.mp4", "3", "9")], ValueError, r"a span must be \(path, start, end\) in seconds, got"),
        ([(7, 3.0, 9.5)], ValueError, r"a span must be \(path, start, end\) in seconds, got"),
        ([("a.mp4", 9.5, 3.0)], ValueError, "span 9.5 to 3 s of a.mp4: give 0 ≤ start < end"),
        ([("a.mp4", -1, 3)], ValueError, "span -1 to 3 s of a.mp4: give 0 ≤ start < end"),
        ([("a.mp4", 0, float("nan"))], ValueError, "span 0 to nan s of a.mp4"),
        ([("none.mp4", 3.0, 9.5)], VideoError, "video file none.mp4 does not exist"),
        (["a.mp4", np.zeros(2)], ValueError, "or of arrays of frames, got"),
        ([np.zeros(2), "a.mp4"], ValueError, "or of arrays of frames, got"),
        (np.array(["none.mp4", "b.mp4"]), VideoError, "video file none.mp4 does not exist"),
        (np.array([pathlib.Path("none.mp4")]), VideoError, "video file none.mp4 does not exist"),
        (np.array("a.mp4"), ValueError, "or of arrays of frames, got"),
        (np.array([], str), ValueError, "or of arrays of frames, got"),
        (np.array([["a.mp4"], ["b.mp4"]]), ValueError, "or of arrays of frames, got"),
        (np.array([b"a.mp4"]), ValueError, "or of arrays of frames, got"),
    ],
)
def test_invalid_videos_and_texts_are_refused(model, videos, error, message):
    with pytest.raises(error, match=message):
        model.embed_videos(videos)


def test_a_list_of_clips_is_an_array_of_them(model, frames):
    np.testing.assert_array_equal(model.embed_videos(list(frames)), model.embed_videos(frames))


def test_frames_of_any_size_and_number_are_scaled_as_evaluation_scales_them(
    model, tmp_path_factory, write_snapshot_at
):
    folder = tmp_path_factory.mktemp("data") / "larger"
    larger = Snapshot.open(write_snapshot_at(folder, clips=2, height=37, width=50).folder)
    clips = []
    for record in range(2):
        clip = larger.clip(record)
        pixels = [tf.io.decode_jpeg(frame, dct_method="INTEGER_ACCURATE") for frame in clip.frames]
        clips.append(np.stack(pixels))
    _, expected = embed_clips(larger, model._encoder, lambda *_: None)
    np.testing.assert_allclose(model.embed_videos(clips), expected.clip, atol=1e-6)
    assert clips[0].shape[1:] == (37, 50, 3)


def test_few_frames_are_repeated_and_many_are_sampled(model, frames):
    one = frames[0]
    still = model.embed_videos([one[:1]])
    np.testing.assert_array_equal(still, model.embed_videos([np.repeat(one[:1], 4, axis=0)]))
    slow = model.embed_videos([np.repeat(one, 3, axis=0)])
    np.testing.assert_array_equal(slow, model.embed_videos([one]))


def test_arrays_of_jax_are_arrays(model, frames):
    expected = model.embed_videos(frames)
    np.testing.assert_array_equal(model.embed_videos(jnp.asarray(frames)), expected)
    np.testing.assert_array_equal(model.embed_videos(list(map(jnp.asarray, frames))), expected)
    heat = model.ground(jnp.asarray(frames[0]), "red ring")
    np.testing.assert_array_equal(heat, model.ground(frames[0], "red ring"))


def test_windows_and_groups(model, snapshot, frames):
    _, expected = embed_clips(snapshot, model._encoder, lambda *_: None)
    encoded = model.encode_videos(frames)
    for name in encoded._fields:
        np.testing.assert_allclose(getattr(encoded, name), getattr(expected, name), atol=1e-6)
    config = model.config
    assert encoded.groups.shape == (3, config.video.group_tokens, config.joint_width)
    assert encoded.windows.shape == (3, config.video.windows, config.video.width)


def test_progress(model, frames, monkeypatch, capsys):
    seen = []
    model.embed_videos(frames[np.arange(19) % 3], lambda *counts: seen.append(counts))
    assert seen == [(8, 19), (16, 19), (19, 19)]
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    model.embed_videos(frames[np.arange(64) % 3])
    assert capsys.readouterr().err == ""
    model.embed_videos(frames[np.arange(65) % 3])
    assert "embed: 8/65 clips" in capsys.readouterr().err


def test_the_repr_has_run_step_and_sizes(untrained_run, model):
    assert repr(model) == (
        f"<svilm.Model '{untrained_run}' at step 0: 4 frames of 16² pixels, 2 windows, 4 groups, "
        f"{model.config.text.tokens} tokens, joint width {model.config.joint_width}>"
    )


def test_several_threads_use_one_model(untrained_run, frames):
    shared = api.load(untrained_run)  # compiles nothing before the threads start
    larger = np.repeat(np.repeat(frames, 2, axis=2), 2, axis=3)
    texts = ["a red ring", "a blue disc"]

    def use(number):
        clips = frames if number % 2 else larger
        return (
            shared.embed_videos(clips),
            shared.embed_texts(texts),
            shared.ground(clips[0], "disc"),
        )

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(use, range(8)))
    for number, found in enumerate(results):
        for one, expected in zip(found, use(number), strict=True):
            np.testing.assert_array_equal(one, expected)


def test_a_noun_is_a_text(model, frames):
    with pytest.raises(
        ValueError, match="noun must be a non-empty string such as 'red ring', got ' '"
    ):
        model.ground(frames[0], " ")


@pytest.mark.parametrize("texts", ["a ring", [], np.array("a ring"), np.array([])])
def test_no_texts(model, texts):
    with pytest.raises(ValueError, match="a list of one or more strings, got "):
        model.embed_texts(texts)


def test_texts_in_an_array_or_anything_that_yields_them(model):
    texts = ["a red ring", "a blue disc", "a red ring"]
    expected = model.embed_texts(texts)
    np.testing.assert_array_equal(model.embed_texts(np.array(texts)), expected)
    np.testing.assert_array_equal(model.embed_texts(text for text in texts), expected)


def test_a_file_whose_name_is_not_utf_8(model, tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    with open(path, "w"):
        pass
    with pytest.raises(VideoError, match=r"caf\\xe9\.mp4' is not UTF-8: rename it"):
        model.embed_videos([pathlib.Path(os.fsdecode(path))])


# Embeds frames by the Python API and a snapshot by the command, on eight devices. Types are not
# checked here as in the tests.
ON_EIGHT_DEVICES = """
import pathlib, sys
import jax, numpy as np
from trainer.inference import api
from trainer.cli.main import main

run, snapshot, frames, out = sys.argv[1:]
model = api.load(run)
(devices,) = {len(leaf.devices()) for leaf in jax.tree.leaves(model._encoder.params)}
assert devices == model._encoder._mesh.size == len(jax.devices()) == 8
for call, given in (
    (model.embed_videos, pathlib.Path("a.mp4")), (model.embed_videos, [b"a.mp4"]),
    (model.embed_videos, 7), (model.embed_texts, [7]), (model.embed_texts, None),
):
    try:
        call(given)
    except ValueError as error:
        assert "must be a list of one" in str(error) and repr(given) in str(error), error
    else:
        raise AssertionError(given)
np.save(f"{out}/clips.npy", model.embed_videos(np.load(frames)))
assert main(["embed", f"--run={run}", f"--snapshot={snapshot}", f"--out={out}"]) == 0
"""


def test_all_devices_of_the_machine_embed_and_give_the_same(
    untrained_run, model, snapshot, frames, tmp_path
):
    np.save(tmp_path / "frames.npy", frames)  # of three clips, on eight devices
    done = subprocess.run(
        [
            *(sys.executable, "-c", ON_EIGHT_DEVICES, untrained_run, snapshot.folder),
            *(tmp_path / "frames.npy", tmp_path),
        ],
        env=os.environ
        | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    _, expected = embed_clips(snapshot, model._encoder, lambda *_: None)
    (shard,) = tmp_path.glob("*.safetensors")
    features = safetensors.numpy.load_file(shard)
    for found, values in (
        (np.load(tmp_path / "clips.npy"), expected.clip),
        (features["clip"], expected.clip),
        (features["groups"], expected.pooled),
        (features["windows"], expected.windows),
    ):
        np.testing.assert_allclose(found, values, atol=1e-6)


def test_a_video_that_the_build_rejected(model, snapshot, monkeypatch):
    # Stands for svilm-pipelines, which tests/e2e runs: its snapshot lacks the video.
    monkeypatch.setattr(video_files, "build", lambda *_: snapshot.folder)
    with pytest.raises(VideoError, match=r"video notes\.mp4 cannot be decoded"):
        model.embed_videos(["notes.mp4"])


def test_without_the_program_that_decodes(model, tmp_path, monkeypatch):
    (tmp_path / "a.mp4").touch()
    monkeypatch.setattr(video_files, "PROGRAM", "svilm-absent")
    with pytest.raises(VideoError, match=r"requires svilm-absent.*\[pipelines\]"):
        model.embed_videos([tmp_path / "a.mp4"])
