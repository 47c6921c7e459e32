import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from protos import contract
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
            np.zeros((1, 4, 8, 8, 3), np.uint8),
            ValueError,
            r"uint8 \['n', 4, 16, 16, 3\], got uint8",
        ),
        (np.zeros((1, 4, 16, 16, 3)), ValueError, "got float64"),
        (np.zeros((0, 4, 16, 16, 3), np.uint8), ValueError, "array of frames has no clip"),
        ([], ValueError, "a list of one or more paths"),
        ("a.mp4", ValueError, "or of arrays of frames, got 'a.mp4'"),
        (["none.mp4"], VideoError, "video file none.mp4 does not exist"),
        ([np.zeros((8, 8, 3), np.uint8)], ValueError, r"got uint8 \[1, 8, 8, 3\]"),
        (
            [np.zeros(2), np.zeros(3)],
            ValueError,
            r"clip 1 has frames float64 \[3\], but clip 0 has float",
        ),
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
