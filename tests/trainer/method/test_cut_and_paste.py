"""Cut-and-paste against the exact distributions of section 3.2."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import random

from trainer.configs.config import CutAndPasteConfig
from trainer.method import cut_and_paste

DRAWS = 40_000


def exact_foreground(windows: int, start_inclusive: bool) -> list[Fraction]:
    """P(m_j = 1) by enumeration of d and s."""
    chance = [Fraction(0)] * windows
    lengths = range(windows // 2, windows)
    for length in lengths:
        starts = range(windows - length + int(start_inclusive))
        for start in starts:
            for j in range(start, start + length):
                chance[j] += Fraction(1, len(lengths) * len(starts))
    return chance


@pytest.mark.parametrize("start_inclusive", [False, True])
@pytest.mark.parametrize("windows", [4, 8, 16])
def test_marginals_equal_their_exact_distribution(windows: int, start_inclusive: bool) -> None:
    keys = random.split(random.key(3), DRAWS)
    start, length = cut_and_paste.draw_spans(keys, windows, start_inclusive=start_inclusive)
    mask = cut_and_paste.foreground_mask(start, length, windows)
    exact = np.array([float(p) for p in exact_foreground(windows, start_inclusive)])
    # 5 standard deviations of a binomial proportion; certain windows must be exact.
    tolerance = 5 * np.sqrt(exact * (1 - exact) / DRAWS)
    assert (np.abs(np.mean(mask, axis=0) - exact) <= tolerance + 1e-9).all()
    lengths, counts = np.unique(length, return_counts=True)
    assert lengths.tolist() == list(range(windows // 2, windows))
    share = 1 / len(lengths)
    assert (np.abs(counts / DRAWS - share) < 5 * np.sqrt(share * (1 - share) / DRAWS)).all()


def test_the_literal_ranges_leave_a_position_shortcut() -> None:
    literal = exact_foreground(16, start_inclusive=False)
    assert literal[-1] == 0 and max(literal) == 1
    symmetric = exact_foreground(16, start_inclusive=True)
    assert symmetric == symmetric[::-1] and max(symmetric) < 1
    # The exact distribution gives 0.82 and 0.80 by position alone.
    for exact, prior in ((literal, 0.82), (symmetric, 0.80)):
        assert round(float(sum(max(p, 1 - p) for p in exact)) / 16, 2) == prior


@given(st.integers(0, 2**31 - 1), st.sampled_from([2, 4, 8, 16]))
def test_partners_are_a_derangement_inside_their_group(seed: int, pair_group: int) -> None:
    keys = random.split(random.key(seed), 16)
    partner = np.asarray(cut_and_paste.roll_partners(keys, pair_group))
    place = np.arange(16)
    assert (partner != place).all()
    assert sorted(partner) == place.tolist()
    assert (partner // pair_group == place // pair_group).all()


def test_every_roll_is_as_likely() -> None:
    keys = random.split(random.key(5), 4 * 3000)
    partner = np.asarray(cut_and_paste.roll_partners(keys, 4))
    roll = (partner[::4] - np.arange(0, len(partner), 4)) % 4
    share = np.bincount(roll, minlength=4) / len(roll)
    assert share[0] == 0
    assert (np.abs(share[1:] - 1 / 3) < 5 * np.sqrt(2 / 9 / len(roll))).all()


def test_draws_do_not_depend_on_the_rest_of_the_batch() -> None:
    keys = random.split(random.key(1), 16)
    config = CutAndPasteConfig(pair_group=4)
    whole = cut_and_paste.draw_splice(keys, 8, config)
    half = cut_and_paste.draw_splice(keys[8:], 8, config)
    np.testing.assert_array_equal(whole.partner[8:] - 8, half.partner)
    np.testing.assert_array_equal(whole.mask[8:], half.mask)


def test_paste_takes_each_window_from_its_clip() -> None:
    frames = jnp.arange(4 * 8).reshape(4, 8, 1, 1, 1) * jnp.ones((1, 1, 2, 2, 3), jnp.int32)
    splice = cut_and_paste.draw_splice(
        random.split(random.key(0), 4), 4, CutAndPasteConfig(pair_group=4)
    )
    pasted = np.asarray(cut_and_paste.paste(frames, splice))
    for i in range(4):
        for t in range(8):
            source = i if splice.mask[i, t // 2] else int(splice.partner[i])
            assert (pasted[i, t] == source * 8 + t).all()


def test_label_weights_are_equation_5() -> None:
    splice = cut_and_paste.draw_splice(
        random.split(random.key(2), 8), 8, CutAndPasteConfig(pair_group=8)
    )
    weights = np.asarray(cut_and_paste.label_weights(splice))
    expected = np.zeros((8, 8))
    for i in range(8):
        share = np.asarray(splice.mask)[i].mean()
        expected[i, i] = share
        expected[i, int(splice.partner[i])] = 1 - share
    np.testing.assert_allclose(weights, expected, atol=1e-7)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    identity = cut_and_paste.label_weights(cut_and_paste.identity_splice(8, 8))
    np.testing.assert_array_equal(identity, np.eye(8))


@pytest.mark.parametrize(
    ("step", "enabled", "whole"),
    [(0, True, True), (4, True, True), (5, True, False), (9, False, True)],
)
def test_splicing_begins_where_the_configuration_says(
    step: int, enabled: bool, whole: bool
) -> None:
    keys = random.split(random.key(2), 8)
    config = CutAndPasteConfig(enabled=enabled, pair_group=8, from_step=5)
    splice = cut_and_paste.splice_at_step(
        keys, jnp.int32(step), 8, config, jnp.int32(config.first_step(100))
    )
    expected = (
        cut_and_paste.identity_splice(8, 8) if whole else cut_and_paste.draw_splice(keys, 8, config)
    )
    for ours, wanted in zip(splice, expected, strict=True):
        np.testing.assert_array_equal(ours, wanted)
