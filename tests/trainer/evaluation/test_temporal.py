from itertools import product

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from trainer.configs.config import VideoConfig
from trainer.evaluation import temporal


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def slow_accuracy(features, masks):
    right = []
    for clip, mask in zip(features, masks, strict=True):
        for j in range(len(mask)):
            sides = {}
            for side in (True, False):
                members = [clip[i] for i in range(len(mask)) if i != j and mask[i] == side]
                sides[side] = cosine(clip[j], np.mean(members, axis=0))
            right.append(sides[bool(mask[j])] > sides[not mask[j]])
    return np.mean(right)


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([4, 5, 8]))
@hypothesis.settings(max_examples=20)
def test_accuracy_equals_a_slow_loop(seed, windows):
    features = np.random.default_rng(seed).normal(size=(5, windows, 3))
    masks = temporal.draw_masks(5, windows, seed)
    assert temporal.window_accuracy(features, masks) == pytest.approx(
        slow_accuracy(features, masks)
    )


def test_noise_scores_at_chance_since_no_centre_holds_the_window_itself():
    features = np.random.default_rng(0).normal(size=(500, 8, 64))
    assert temporal.window_accuracy(features, temporal.draw_masks(500, 8, 0)) == pytest.approx(
        0.5, abs=0.06
    )


def test_different_sides_are_separated_and_equal_ones_tie():
    masks = temporal.draw_masks(20, 8, seed=3)
    sides = np.where(masks[:, :, None], np.array([1.0, 0.2]), np.array([-0.3, 1.0]))
    assert temporal.window_accuracy(sides, masks) == 1.0
    assert temporal.window_accuracy(np.ones((20, 8, 2)), masks) == 0.5


def test_masks_are_half_a_clip_from_any_start_alike():
    masks = temporal.draw_masks(4000, 8, seed=1)
    assert (masks.sum(axis=1) == 4).all()
    starts = masks.argmax(axis=1)
    assert (np.diff(masks.astype(int), axis=1) != 0).sum(axis=1).max() == 2  # one stretch
    shares = np.bincount(starts, minlength=5) / len(starts)
    assert shares == pytest.approx(np.full(5, 0.2), abs=0.03)
    assert (temporal.draw_masks(4000, 8, seed=1) == masks).all()


@pytest.mark.parametrize("windows", [4, 5, 8, 16])
def test_position_prior_is_the_best_rule_over_all_starts(windows):
    length = windows // 2
    starts = range(windows - length + 1)
    right = 0
    for j, guess in product(range(windows), (True, False)):
        hits = sum((s <= j < s + length) == guess for s in starts)
        misses = len(starts) - hits
        right += hits if hits > misses or (hits == misses and guess) else 0
    assert temporal.position_prior(windows) == pytest.approx(right / windows / len(starts))


def test_splice_takes_each_frame_from_its_side():
    clip, other = np.full((1, 8, 2, 2, 3), 1, np.uint8), np.full((1, 8, 2, 2, 3), 2, np.uint8)
    mask = np.array([[False, True, True, False]])
    spliced = temporal.splice(clip, other, mask)
    assert spliced[0, :, 0, 0, 0].tolist() == [2, 2, 1, 1, 1, 1, 2, 2]


def test_too_few_windows_are_refused_by_number():
    temporal.check_windows(VideoConfig(frames=8))
    with pytest.raises(temporal.TemporalError, match="this model has 2 "):
        temporal.check_windows(VideoConfig(frames=4))
