import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.planning import filters, plan
from pipelines.sources.clip_request import ClipRequest, reject
from pipelines.sources.reject_reasons import REASONS
from protos.v1.manifest_pb2 import Filters, Reject

ROW = ClipRequest("a_0_2", "a", 0, 2_000_000, "ein Bär singt", (), "rows.csv:1")


def reason(excluded=frozenset(), **settings):
    kept = filters.keep(ROW, Filters(**settings), excluded)
    assert kept is ROW or (isinstance(kept, Reject) and kept.reason in REASONS)
    if isinstance(kept, Reject):
        assert (kept.source_row, kept.video_id, kept.stage) == ("rows.csv:1", "a", "plan")
        return kept.reason
    return None


@pytest.mark.parametrize("listed", ["bikes", "bikes.mp4", "bikes.MP4"])
@pytest.mark.parametrize("annotated", ["bikes", "bikes.mp4", "bikes.mkv"])
def test_exclusions_ignore_the_file_extension(tmp_path, listed, annotated):
    (tmp_path / "ids.txt").write_text(f"{listed}\nv1.2\n")
    excluded = plan.read_exclusions((str(tmp_path / "ids.txt"),))
    kept = filters.keep(ROW._replace(video_id=annotated), Filters(), excluded)
    assert isinstance(kept, Reject) and kept.reason == "excluded"
    assert isinstance(filters.keep(ROW._replace(video_id="v1"), Filters(), excluded), ClipRequest)


@pytest.mark.parametrize("listed", ["Caf\u00e9", "Cafe\u0301", "Cafe\u0301.mp4"])
@pytest.mark.parametrize("annotated", ["Caf\u00e9", "Cafe\u0301", "Caf\u00e9.mkv"])
def test_exclusions_ignore_unicode_normalization(tmp_path, listed, annotated):
    (tmp_path / "ids.txt").write_text(listed, encoding="utf-8")
    excluded = plan.read_exclusions((str(tmp_path / "ids.txt"),))
    kept = filters.keep(ROW._replace(video_id=annotated), Filters(), excluded)
    assert isinstance(kept, Reject) and kept.reason == "excluded"
    assert isinstance(filters.keep(ROW._replace(video_id="Cafe"), Filters(), excluded), ClipRequest)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, None),
        ({"min_clip_us": 2_000_000, "max_clip_us": 2_000_000}, None),
        ({"min_clip_us": 2_000_001}, "clip_too_short"),
        ({"max_clip_us": 1_999_999}, "clip_too_long"),
        ({"min_caption_words": 3, "max_caption_words": 3}, None),
        ({"min_caption_words": 4}, "caption_too_short"),
        ({"max_caption_words": 2}, "caption_too_long"),
        ({"min_ascii_share": 0.9}, None),
        ({"min_ascii_share": 0.95}, "caption_not_ascii"),
        ({"excluded": frozenset({"b"})}, None),
        ({"excluded": frozenset({"a"}), "min_clip_us": 9_000_000}, "excluded"),
    ],
)
def test_each_filter(settings, wanted):
    assert reason(**settings) == wanted


def test_filters_keep_rejects_unchanged():
    row = reject("read", "row_columns", "2 columns", source_row="rows.csv:1")
    assert filters.keep(row, Filters(min_clip_us=9_000_000), frozenset()) is row


def test_an_exclusion_list(tmp_path):
    (tmp_path / "one.txt").write_bytes(b"\xef\xbb\xbfb\r\n\n a \n")
    (tmp_path / "two.txt").write_text("c")
    paths = [str(tmp_path / name) for name in ("one.txt", "two.txt")]
    assert filters.read_ids(paths) == {"a", "b", "c"}
    assert filters.ids_sha256(filters.read_ids(paths[::-1])) == filters.ids_sha256(frozenset("cba"))


def test_unmatched_exclusions_are_found():
    excluded = frozenset({"a", "v_b", "v_b.mp4", "Cafe\u0301", "Caf\u00e9", "'c'", "d.MKV", "d"})
    assert filters.unmatched(excluded, ["a.webm", "Caf\u00e9.mp4", "x"]) == [
        "'c'",
        "d.MKV",
        "v_b.mp4",
    ]
    assert filters.unmatched(excluded, ["a", "Cafe\u0301", "'c'", "d.mp4", "v_b"]) == []


@given(arrays(np.uint8, st.tuples(st.integers(2, 5), st.just(1), st.just(2), st.just(3))))
def test_motion_is_the_mean_absolute_difference(frames):
    assert filters.motion(frames) == pytest.approx(
        np.abs(np.diff(frames.astype(float), axis=0)).mean()
    )


@given(st.text())
def test_ascii_share_is_a_fraction(text):
    assert 0 <= filters.ascii_share(text) <= 1
    assert (filters.ascii_share(text) == 1) == "".join(text.split()).isascii()
