import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from trainer.configs.config import Config, InputConfig, VideoConfig
from trainer.evaluation import grounding
from trainer.evaluation.ground_truth import TrueObject
from trainer.evaluation.grounding import View

# Two windows of two frames, 2×2 patches of 16 pixels.
VIDEO = VideoConfig(frames=4, resolution=32, patch=16, group_tokens=3)
CONFIG = Config(video=VIDEO, input=InputConfig(short_side=32))
VIEW = View(CONFIG, snapshot_frames=4)
FIRST, SECOND = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
# The noun FIRST goes to group 0, SECOND to group 2.
GROUPS = np.array([[FIRST, -FIRST, SECOND]])


def masks(*where):
    """Source masks of 4 frames, 64×64, with the given (frames, rows, columns) inside."""
    inside = np.zeros((4, 64, 64), bool)
    for place in where:
        inside[place] = True
    return inside


def play(group_of, share, objects, nouns=(FIRST, SECOND)):
    nouns = np.stack(nouns[: len(objects)])
    return grounding.pointing(
        GROUPS, np.array([group_of]), np.array([share]), [objects], [nouns], VIEW
    )


def test_the_surest_token_of_the_nouns_group_is_scored_over_its_tubelet():
    ring = TrueObject("ring", masks(np.s_[2:3, :32, 32:]))  # the last window's first frame
    disc = TrueObject("disc", masks(np.s_[:, 32:, :32]))
    group_of = [0, 1, 1, 2, 1, 0, 1, 1]
    share = [0.5, 1.0, 1.0, 0.9, 1.0, 0.8, 1.0, 1.0]
    figures = play(group_of, share, [ring, disc])
    # Token 5 is the second window's upper right: on the ring in one frame of two. Token 3 is the
    # first window's lower right: on neither.
    assert figures["objects"] == 2
    assert figures["pointing_accuracy"] == pytest.approx((0.5 + 0) / 2)
    assert figures["other_object"] == pytest.approx(0)
    assert figures["chance"] == pytest.approx((1 / 16 + 1 / 4) / 2)
    assert figures["empty_groups"] == 0


def test_the_same_point_is_scored_against_the_other_object():
    ring = TrueObject("ring", masks(np.s_[:, 32:, :32]))
    disc = TrueObject("disc", masks(np.s_[:, :32, :32]))
    figures = play([0, 1, 2, 1, 1, 1, 1, 1], [1.0] * 8, [ring, disc])
    assert figures["pointing_accuracy"] == 0
    assert figures["other_object"] == 1


def test_a_group_without_tokens_misses():
    everywhere = TrueObject("sky", masks(np.s_[:]))
    figures = play([1] * 8, [1.0] * 8, [everywhere])
    assert figures["pointing_accuracy"] == 0
    assert figures["chance"] == 1
    assert figures["other_object"] is None
    assert figures["empty_groups"] == 1


def slow_pointed_token(group, group_of, share):
    tokens = [token for token in range(len(group_of)) if group_of[token] == group]
    return max(tokens, key=lambda token: (share[token], -token), default=None)


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.3, 0.5, 0.9])), min_size=1)
)
def test_pointed_token_equals_a_search(tokens):
    group_of, share = (np.array(column) for column in zip(*tokens, strict=True))
    for group in range(4):
        expected = slow_pointed_token(group, group_of, share)
        assert grounding.pointed_token(group, group_of, share) == expected


@pytest.mark.parametrize("scale", [1, 2, 3.5])
@pytest.mark.parametrize("token", range(8))
def test_points_fall_on_their_patch_at_any_resolution_of_the_truth(scale, token):
    height = width = round(32 * scale)
    point = grounding.point_of(token, CONFIG)
    y, x = VIEW.pixel(point, height, width)
    row, column = divmod(token % 4, 2)
    assert point.window == token // 4
    assert (int(2 * y / height), int(2 * x / width)) == (row, column)


def test_the_centre_crop_is_undone():
    # The crop covers 32 of 40 pixels of the short side, 80 %: the middle 64 of 80.
    view = View(Config(video=VIDEO, input=InputConfig(short_side=40)), snapshot_frames=4)
    assert view.crop(80, 160) == (8, 48, 64)
    assert view.pixel(grounding.point_of(0, CONFIG), 80, 160) == (8 + 16, 48 + 16)
    assert view.pixel(grounding.point_of(3, CONFIG), 80, 160) == (8 + 48, 48 + 48)
    outside = np.ones((4, 80, 160), bool)
    outside[:, 8:72, 48:112] = False
    assert not view.visible(outside).any()
    assert view.visible(~outside).all()


@pytest.mark.parametrize(
    ("snapshot_frames", "source_frames", "shown"),
    [
        (4, 4, [0, 1, 2, 3]),
        (4, 8, [1, 3, 5, 7]),
        (8, 8, [1, 3, 5, 7]),
        (4, 2, [0, 0, 1, 1]),
        (16, 16, [2, 6, 10, 14]),
    ],
)
def test_frames_are_those_on_screen_at_the_snapshots_times(snapshot_frames, source_frames, shown):
    view = View(CONFIG, snapshot_frames)
    assert view.frames(source_frames).tolist() == shown
    # The frame on screen at the instant of the kept frame: start + (i + ½)·length/kept.
    picked = [(2 * k + 1) * snapshot_frames // 8 for k in range(4)]
    by_time = [int((i + 0.5) / snapshot_frames * source_frames) for i in picked]
    assert view.frames(source_frames).tolist() == by_time
