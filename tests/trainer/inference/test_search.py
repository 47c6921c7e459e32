import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from trainer.configs.overrides import override
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.distributed.mesh import one_device
from trainer.inference import search
from trainer.method.train_step import init_state
from trainer.runs.checkpoint import Loaded


def no_progress(done, total):
    pass


@pytest.fixture
def run(small_config, tokenizer):
    config = override(small_config, [f"text.vocabulary={len(tokenizer.pieces)}", "joint_width=16"])
    params = init_state(config, one_device()).params
    return Loaded(config, tokenizer, params, step=5, averaged=False)


def test_the_most_similar_clips_come_first(write_snapshot, run):
    written = write_snapshot(clips=11)
    snapshot = Snapshot.open(written.folder)
    found = search.search("red ring", run, snapshot, 4, no_progress)
    # These are the model's answers with seed 7. The fifth clip's score is -0.0447.
    assert [one.record for one in found] == [1, 9, 4, 8]
    scores = [one.score for one in found]
    assert scores == pytest.approx([0.1384, 0.0565, 0.0318, 0.0204], abs=1e-3)
    for one in found:
        assert one.clip.clip_id == written.clips[one.record].clip_id
    every = search.search("red ring", run, snapshot, 99, no_progress)
    assert every[:4] == found
    assert sorted(one.record for one in every) == list(range(11))
    scores = [one.score for one in every]
    assert scores == sorted(scores, reverse=True)


@given(st.text("iIl. WmM,'abc…é漢", max_size=60), st.integers(0, 400))
def test_a_text_is_cut_where_it_would_be_wider_than_its_room(text, room):
    font, draw = ImageFont.load_default(15), ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def fits(shown):
        return draw.textlength(shown, font) <= room

    shown = search.fitting(draw, text, font, room)
    if fits(text):
        assert shown == text
        return
    kept = shown.removesuffix("…")
    assert shown == kept + "…" and text.startswith(kept)
    assert fits(shown) or not kept
    assert not fits(text[: len(kept) + 1] + "…")


def test_a_text_of_any_length_is_cut_with_few_measurements(monkeypatch):
    font, draw = ImageFont.load_default(15), ImageDraw.Draw(Image.new("RGB", (1, 1)))
    measured, textlength = [], draw.textlength

    def counted(text, font):
        measured.append(len(text))
        return textlength(text, font)

    monkeypatch.setattr(draw, "textlength", counted)
    for text in ("ring " * 500, "ring " * 200_000, "漢" * 100_000):
        measured.clear()
        assert search.fitting(draw, text, font, 400).endswith("…")
        assert len(measured) <= 10 and max(measured) <= 402


def test_the_contact_sheet_shows_the_clips_frames(write_snapshot, run):
    written = write_snapshot(clips=5, frames=12, height=40, width=60, shards=1)
    snapshot = Snapshot.open(written.folder)
    found = search.search("red ring", run, snapshot, 2, no_progress)
    clips = [snapshot.clip(one.record) for one in found]
    sheet = search.contact_sheet("red ring", found, clips)
    one = search.contact_sheet("red ring", found[:1], clips[:1])
    assert sheet.width > 8 * 180  # eight frames of 180×120 pixels
    assert one.width == sheet.width and one.height < sheet.height

    # The first strip's first picture is the clip's first shown frame.
    first = Image.open(io.BytesIO(written.clips[found[0].record].frames[0])).resize((180, 120))
    pixels = np.asarray(one)[:, 24 : 24 + 180].astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, 120, axis=0)
    differences = [
        np.abs(window - np.asarray(first).transpose(1, 2, 0)).mean() for window in windows
    ]
    assert min(differences) == 0


def test_a_long_caption_is_cut_to_the_sheets_width(write_snapshot, run):
    snapshot = Snapshot.open(write_snapshot(clips=3, shards=1).folder)
    found = search.search("ring", run, snapshot, 1, no_progress)
    sheet = search.contact_sheet("ring " * 500, found, [snapshot.clip(found[0].record)])
    margin = np.asarray(sheet)[:, -20:]
    assert (margin == margin[0, 0]).all()


@pytest.mark.parametrize(
    ("time_us", "shown"),
    [(0, "00:00.000"), (999, "00:00.000"), (59_999_000, "00:59.999"), (3_600_000_000, "60:00.000")],
)
def test_times_are_printed_to_the_millisecond(time_us, shown):
    assert search.clock(time_us) == shown


def test_an_empty_snapshot_is_refused(write_snapshot, run):
    with pytest.raises(SnapshotError, match="has no clip"):
        search.search(
            "red ring", run, Snapshot.open(write_snapshot(clips=0).folder), 4, no_progress
        )
