"""Text, contact sheets and data cards of a snapshot."""

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.snapshots import records
from pipelines.snapshots.card import page, statistics, strips, text
from pipelines.snapshots.card.strips import Entry
from pipelines.snapshots.records import Place
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import Reject

EVIL = "<img src=x onerror='alert(1)'>\" man"


@pytest.fixture
def written(tmp_path, make_clip, write_snapshot):
    clips = [make_clip(f"video{i}", caption=f"{EVIL}<i>{i}", grey=20 * i) for i in range(12)]
    rejects = (
        Reject(reason="video_missing", message=EVIL, video_id="video99", source_row="rows.csv:7"),
    )
    folder = tmp_path / "snapshot"
    return str(folder), write_snapshot(folder, clips, rejects=rejects), clips


def test_the_data_card_loads_without_errors_and_shows_its_clips(written, chromium, tmp_path):
    folder, manifest, _ = written
    html = page.data_card(folder, manifest, clips=5, records=100)
    path = tmp_path / "card.html"
    path.write_text(html, encoding="utf-8")
    seen = chromium(path)
    assert seen.errors == []
    assert len(seen.pictures) == 5 and min(seen.pictures) > 0
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "<script" not in html and "<img src=x" not in html and "url(" not in html
    assert html.count("<mark>man&lt;i&gt;") == 5
    for told in ("<b>13</b>", "<b>12</b>", "video_missing", "rows.csv:7", "of all 12 records"):
        assert told in html, told
    assert manifest.inputs_sha256 in html and "ffmpeg" in html
    for section in html.split("<section>")[1:]:
        (of,) = re.findall('<p class="of">(.*?)</p>', section)
        assert "snapshot snapshot: " in of
        assert manifest.inputs_sha256[:12] in of
    assert html.count("<table>") == html.count("<table><caption>") > 3


def test_statistics_state_their_sample(written):
    folder, manifest, _ = written
    told = []
    html = page.data_card(
        folder, manifest, clips=1, records=4, progress=lambda *of: told.append(of)
    )
    assert "of 4 evenly spaced records out of 12" in html
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_figures_of_records(make_clip):
    figures = statistics.RecordStatistics()
    figures.add(make_clip("a", caption="a tall man"))
    figures.add(make_clip("b", caption="one Man"))
    assert (figures.seconds, figures.words, figures.nouns) == ([1.0, 1.0], [3, 2], [1, 1])
    assert figures.sizes == {"12×8": 2} and figures.phrases == {"man": 2}
    assert figures.frame_bytes[0] == len(make_clip("a").frames[0])


def test_near_duplicate_captions_are_counted(make_clip):
    figures = statistics.RecordStatistics()
    for i, caption in enumerate(
        ("A man.", "a  man", "a Man", "a dog", "the man", "The DOG!", "the dog")
    ):
        figures.add(make_clip(f"video{i}", caption=caption))
    assert figures.near_duplicates == 3 + 2


@given(st.lists(st.integers(-50, 5000), min_size=1) | st.lists(st.floats(0, 1e6), min_size=1))
def test_a_histogram_holds_every_value_once(values):
    bars = statistics.histogram(values)
    assert sum(count for _, _, count in bars) == len(values)
    assert len(bars) <= 20
    assert bars[0][0] == min(values) and bars[-1][1] >= max(values) * (1 - 1e-9)


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_a_value_with_that_share_below(values, share):
    value = statistics.quantile(values, share)
    below = sum(other < value for other in values)
    assert value in values and below <= share * len(values)


def test_rejects_are_grouped_with_few_examples():
    rejects = [Reject(reason="b", message=str(i)) for i in range(9)] + [Reject(reason="a")]
    reasons = statistics.by_reason(rejects)
    assert list(reasons) == ["b", "a"] and reasons["b"].count == 9
    assert [reject.message for reject in reasons["b"].examples] == ["0", "1", "2"]


def test_a_contact_sheet_as_png(make_clip):
    entries = [Entry(Place(0, i), make_clip("a", grey=255 * i)) for i in range(2)]
    with Image.open(io.BytesIO(strips.png(entries))) as sheet:
        black, white = (sheet.getpixel((40, y)) for y in (100, 270))
    assert black == (0, 0, 0) and white == (255, 255, 255)


@given(st.text(), st.floats(-5, 400))
def test_a_caption_is_cut_to_the_longest_beginning_that_fits(text, room):
    def width(shown):
        return float(sum(ord(one) % 7 for one in shown))

    shown = strips._fitting(text, width, room)
    assert text.startswith(shown) and (width(shown) <= room or not shown)
    assert shown == text or width(text[: len(shown) + 1]) > room or room < 0


def test_a_caption_of_any_length_is_cut_with_few_measurements():
    for caption in ("x" * 100_000, "ring " * 20_000, "猫" * 100_000):
        measured = []

        def width(shown, measured=measured):
            measured.append(len(shown))
            return 9.0 * len(shown)

        assert len(strips._fitting(caption, width, 1500.0)) == 166
        assert len(measured) < 20 and max(measured) < 600


def test_a_sheet_of_many_nouns_stops_at_its_edge(make_clip, monkeypatch):
    written = []
    write = strips._write
    monkeypatch.setattr(strips, "_write", lambda *given: written.append(given) or write(*given))
    clip = make_clip("a")
    clip.caption = "red ring " * 10_000
    for start in range(0, len(clip.caption), 9):
        clip.noun_chunks.add(text="ring", start=start + 4, end=start + 8)
    strips.png([Entry(Place(0, 0), clip)])
    assert len(written) < 60  # out of 20,000


def test_a_strip_covers_the_whole_clip(make_clip):
    clip = make_clip("a")
    frames = [make_clip("a", grey=8 * i).frames[0] for i in range(32)]
    del clip.frames[:]
    clip.frames.extend(frames)
    strip = np.asarray(strips.strip(clip))[50, :, 0]
    greys = [int(strip[len(strip) * (2 * i + 1) // 16]) for i in range(8)]
    assert greys == pytest.approx([8 * (4 * i + 2) for i in range(8)], abs=3)


@given(st.text())
def test_pieces_concatenate_to_the_caption(caption):
    assert "".join(piece for piece, _ in strips.pieces(Clip(caption=caption))) == caption


def test_a_records_text_has_benchmark_annotations(make_clip):
    clip = make_clip("a")
    clip.captions.extend([clip.caption, "somebody"])
    clip.questions.add(text="who is there?", answer="man")
    clip.segments.add(start_us=1_000_000, end_us=61_500_000, label="Ballet")
    clip.boxes.add(time_us=1_000_000, x1=0.25, x2=0.5, y2=1, score=0.9)
    clip.video_duration_us = 70_000_000
    shown = text.lines(Entry(Place(0, 0), clip))
    assert shown[-5:] == [
        "  video end    1:10.000 (annotated)",
        "  caption      'somebody'",
        "  question     'who is there?' → 'man'",
        "  segment      0:01.000 – 1:01.500 'Ballet'",
        "  box          0:01.000 [0.25, 0, 0.5, 1] score 0.9",
    ]


def test_a_record_as_text(make_clip):
    shown = "\n".join(text.lines(Entry(Place(2, 7), make_clip("a", 61_000_000))))
    for told in ("a_61000000", "2:7", "1:01.000 – 1:02.000 (1 s)", "'man' [2, 5)", "4 of 12×8"):
        assert told in shown, told


def test_the_commands(written, cli, tmp_path):
    folder, manifest, clips = written
    place = str(records.find(folder, manifest, [clips[3].clip_id])[0])
    done = cli("inspect", folder, place, "--pictures", tmp_path / "clips.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(clips[3].clip_id)
    assert (tmp_path / "clips.html").read_text().count("<figure") == 1
    done = cli("describe", folder, "--out", tmp_path / "card.html")
    assert done.returncode == 0 and (tmp_path / "card.html").stat().st_size > 5000
    done = cli("describe", folder, "--out", tmp_path / "nowhere" / "card.html")
    assert done.returncode == 1 and "No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_card_has_the_name_and_the_options(written):
    folder, manifest, _ = written
    manifest.dataset = "generic"
    manifest.config.source.columns.update({"video": "clip", "end": "length"})
    manifest.config.source.time_unit = "ms"
    manifest.config.filters.min_clip_us = 1_500_000
    card = page.data_card(folder, manifest, clips=1, records=9, name="Our <bikes>")
    assert f"<title>Our &lt;bikes&gt; {manifest.data_version}</title>" in card
    for option, value in (
        ("--columns", "end=length video=clip"),
        ("--time-unit", "ms"),
        ("--min-clip", "1.5 s"),
        ("--jpeg-quality", "90"),
    ):
        assert f"<tr><td>{option}</td><td>{value}</td></tr>" in card
    manifest.config.source.Clear()
    card = page.data_card(folder, manifest, clips=1, records=9)
    assert "<tr><td>--time-unit</td><td>s</td></tr>" in card
