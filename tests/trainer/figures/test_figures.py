import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainer.cli.main import main
from trainer.data.snapshot import Snapshot
from trainer.figures import heatmap, usage, write
from trainer.inference.encoder import Encoder, embed_clips
from trainer.runs import checkpoint


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return Snapshot.open(write_snapshot_at(folder, clips=6, height=16, width=16).folder)


@pytest.fixture(scope="module")
def drawn(untrained_run, snapshot, tmp_path_factory):
    out = tmp_path_factory.mktemp("figures") / "of" / "run"
    names = [f"--run={untrained_run}", f"--snapshot={snapshot.folder}", f"--out={out}"]
    beside = f"--beside={untrained_run}/checkpoints/0"
    assert main(["figures", *names, beside, "--clips=5", "--noun=red ring", "--noun=$a_b$"]) == 0
    return out


def test_every_file_is_a_picture_of_its_named_kind(drawn, snapshot):
    told = json.loads((drawn / "figures.json").read_text())
    ids = snapshot.clip_ids(np.arange(6))
    assert len(told) == 5
    assert all(one["beside"]["run"].endswith("checkpoints/0") for one in told)
    wanted = {"figures.json", "windows.png", "groups.png"}
    for one in told:
        assert one["clip_id"] == ids[one["record"]]
        assert one["nouns"] == ["red ring", "$a_b$"]
        wanted |= {f"nouns-{one['record']:05d}.{kind}" for kind in ("png", "gif")}
        with Image.open(drawn / f"nouns-{one['record']:05d}.gif") as film:
            assert film.n_frames == 4  # type: ignore[attr-defined]
            side = 160
            assert film.size == (3 * side + 2 * 4 * (side // 16), side)
    assert {path.name for path in drawn.iterdir()} == wanted
    for path in drawn.glob("*.png"):
        with Image.open(path) as picture:
            assert len(set(picture.convert("L").tobytes())) > 10


def test_clips_are_chosen_by_id_and_draw_their_captions_nouns(untrained_run, snapshot, tmp_path):
    ids = snapshot.clip_ids(np.arange(6))
    run = checkpoint.load(untrained_run)
    records = write.find_records(snapshot, [ids[4], ids[1], ids[4]])
    assert records == [4, 1]
    left = [tmp_path / name for name in ("windows.png", "nouns-00003.gif", "of_the_user.png")]
    for path in left:  # files of an earlier call, and another file
        path.touch()
    files = write.write({"a": run}, snapshot, records, (), tmp_path, lambda *_: None)
    told = json.loads(files[-1].read_text())
    encoder = Encoder(run.config, run.tokenizer, run.params)
    texts, _ = embed_clips(snapshot, encoder, lambda *_: None, np.array(records))
    assert [tuple(one["nouns"]) for one in told] == [text.nouns for text in texts]
    assert [one["record"] for one in told] == [4, 1]
    assert left[0] in files and left[0].stat().st_size
    assert [path.exists() for path in left] == [True, False, True]
    files = write.write({"a": run}, snapshot, [4], (), tmp_path, lambda *_: None)
    assert {*tmp_path.iterdir()} == {*files, left[2]}  # one clip is not spliced


def test_a_clip_that_is_not_there(untrained_run, snapshot, tmp_path, capsys):
    names = [f"--run={untrained_run}", f"--snapshot={snapshot.folder}", f"--out={tmp_path}"]
    assert main(["figures", *names, "--clip=none"]) == 1
    assert f"{snapshot.folder} has no clip 'none'" in capsys.readouterr().err


@given(st.integers(0, 2**32 - 1))
def test_only_hot_places_are_painted(seed):
    chance = np.random.default_rng(seed)
    frames = chance.integers(0, 256, (2, 8, 8, 3), np.uint8)
    warm = np.zeros((2, 4, 4))
    warm[0, 0, 0] = chance.uniform(0.01, 1.0)
    painted = heatmap.overlay(frames, warm)
    np.testing.assert_array_equal(painted[1], frames[1])
    np.testing.assert_array_equal(painted[0, 4:, 4:], frames[0, 4:, 4:])
    # The clip's hottest patch is as opaque however sure it is.
    np.testing.assert_array_equal(painted, heatmap.overlay(frames, (warm > 0).astype(np.float64)))


@pytest.mark.parametrize("text", ["a red ring " * 1000, "x" * 10_000, "a\nb" * 5000])
def test_long_texts_leave_the_pictures_their_room(text):
    frames, maps = np.zeros((8, 32, 32, 3), np.uint8), [np.ones((4, 2, 2))]
    short, long = (heatmap.still(one, frames, [one], maps) for one in ("a ring", text))
    for figure in (short, long):
        figure.draw_without_rendering()
    for one, other in zip(short.axes, long.axes, strict=True):
        assert other.get_position().width > 0.7 * one.get_position().width


def test_usage_counts_patches_and_nouns():
    group_of = np.array([[0, 0, 2, 1], [2, 2, 2, 2]])
    np.testing.assert_allclose(usage.patch_shares(group_of, 4), [2 / 8, 1 / 8, 5 / 8, 0])
    groups = np.stack([np.eye(3), np.eye(3)[::-1]])
    nouns = [np.array([[0.0, 1.0, 0.1]]), np.array([[0.9, 0.0, 0.1], [1.0, 0.0, 0.0]])]
    np.testing.assert_allclose(usage.noun_shares(groups, nouns), [0, 1 / 3, 2 / 3])
    assert usage.noun_shares(groups, [np.zeros((0, 3))] * 2).tolist() == [0, 0, 0]
