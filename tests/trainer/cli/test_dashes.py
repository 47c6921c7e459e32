"""Clip ids that begin with dashes."""

import pytest

from trainer.cli.main import UsageError, _parser

FIGURES = ["figures", "--run", "r", "--snapshot", "s", "--out", "o"]


@pytest.mark.parametrize("video_id", ["-4wsuPCjDBc", "--_S9IDQPLg", "-hABCDEFGHI"])
def test_an_id_that_begins_with_a_dash_is_no_option(video_id):
    clip_id = f"{video_id}_0_10000000_5b41c1ab"
    assert _parser().parse_args([*FIGURES, "--clip", clip_id]).clip == [clip_id]


@pytest.mark.parametrize("word", ["-x", "--clips", "-4wsuPCjDBc"])
def test_other_words_with_dashes_stay_options(word):
    with pytest.raises(UsageError):
        _parser().parse_args([*FIGURES, "--clip", word])


@pytest.mark.parametrize("clip_id", ["video_0_900000", "-4wsuPCjDBc_0_10000000_5b41c1ab"])
def test_an_id_after_an_equals_sign_stays_with_its_option(clip_id):
    assert _parser().parse_args([*FIGURES, f"--clip={clip_id}"]).clip == [clip_id]
