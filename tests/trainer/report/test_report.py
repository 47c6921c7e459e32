import math
import re

import numpy as np
import pytest

from trainer.configs.overrides import override
from trainer.data.snapshot import Snapshot
from trainer.distributed.mesh import one_device
from trainer.evaluation.ground_truth import ClipKey, TrueObject
from trainer.evaluation.grounding import Point
from trainer.inference.encoder import Encoder, embed_clips
from trainer.method.train_step import init_state
from trainer.report import curves, drawing, retrieval
from trainer.report.page import page
from trainer.runs.checkpoint import Loaded
from trainer.runs.seen_clips import Overlap, of_loaded
from trainer.tasks import zero_shot

LOG = [
    {"step": 5, "contrast": 6.9, "grounding": 7.1, "temporal": 0.2, "group_entropy": 0.9},
    {"step": 10, "contrast": 6.1, "grounding": None, "temporal": 0.1, "group_entropy": 0.8},
]


def no_progress(done, total):
    pass


@pytest.fixture
def run(small_config, tokenizer):
    settings = ["video.frames=8", "video.group_tokens=4", "joint_width=16"]
    config = override(small_config, [*settings, f"text.vocabulary={len(tokenizer.pieces)}"])
    params = init_state(config, one_device()).params
    return Loaded(config, tokenizer, params, step=10, averaged=False)


@pytest.fixture
def snapshot(write_snapshot):
    return Snapshot.open(write_snapshot(clips=16, frames=8).folder)


@pytest.fixture
def truth(snapshot, run):
    mask = np.zeros((8, 32, 32), bool)
    mask[:, 4:20, 8:30] = True
    encoder = Encoder(run.config, run.tokenizer, run.params)
    return {
        ClipKey(text.video_id, text.start_us, text.end_us, text.caption): [
            TrueObject(noun, mask) for noun in text.nouns
        ]
        for text in embed_clips(snapshot, encoder, no_progress)[0]
    }


@pytest.mark.timeout(900)  # compiles five encoders
def test_the_page_loads_without_errors_and_shows_its_pictures(
    snapshot, run, truth, chromium, tmp_path
):
    control = run._replace(config=override(run.config, ["loss.temporal_weight=0"]))
    metrics = zero_shot.evaluate(run, snapshot, no_progress, truth, control=control)
    more = {"train": snapshot, "truth": truth, "control": control}
    html = page(run, LOG, metrics, snapshot, no_progress, seen=of_loaded(run, snapshot), **more)
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    seen = chromium(path)
    assert seen.errors == []
    # Films of 12 queries, strips of the nouns of 6 clips and of 2 splices, a map for each group.
    nouns = len(re.findall('class="noun"', html))
    assert len(seen.pictures) == 12 * 6 + nouns + 2 + 4
    assert min(seen.pictures) > 0

    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "<script" not in html and "@import" not in html and "url(" not in html
    assert len(html) < 5e6
    for heading in ("Training curves", "Retrieved clips", "Noun grounding"):
        assert f"<h2>{heading}</h2>" in html
    assert f"{metrics['zero_shot']['t2v']['R@1']:.1f}" in html
    assert html.count('class="matrix"') == 2 * 3
    for section in html.split("<section>")[1:]:
        (of,) = re.findall('<p class="of">(.*?)</p>', section)
        assert "the model, step 10" in of
        assert snapshot.folder in section
        assert snapshot.manifest_sha256[:12] in section
    assert html.count("<table>") == html.count("<table><caption>") == 2


def test_the_page_omits_missing_inputs(snapshot, run):
    metrics = zero_shot.evaluate(run, snapshot, no_progress)
    seen = Overlap("test", True, (), 6, 1, ("<b>",))
    html = page(run, [], metrics, snapshot, no_progress, seen=seen)
    assert "the run was trained on 1 of the 6 videos of test, such as &lt;b&gt;." in html
    assert "The run has no logged steps." in html
    assert "chance (mean area)" not in html
    assert "the object (ground truth)" not in html
    assert html.count('class="matrix"') == 2 * 2


def test_chromium_reports_errors_of_a_page(chromium, tmp_path):
    path = tmp_path / "wrong.html"
    path.write_text(
        "<title>t</title><img src='data:image/png;base64,AAAA'>"
        "<script>console.error('an error of the page')</script>"
    )
    seen = chromium(path)
    assert "an error of the page" in "".join(seen.errors)
    assert seen.pictures == [0]


def test_texts_of_a_snapshot_stay_texts():
    evil = "<img src=x onerror='alert(1)'>\""
    assert "<img" not in retrieval.differing(evil, asked="")
    film = drawing.film(np.zeros((2, 4, 4, 3), np.uint8), 1.0, evil)
    assert film.count("<") == 3 and "'" not in film.partition('alt="')[2].partition('"')[0]


def test_words_that_were_not_asked_for_stand_out():
    shown = retrieval.differing("A red ring is rising.", asked="a RED square, rising")
    assert shown == "A red <b>ring</b> <b>is</b> rising."


def test_a_film_shows_frames_over_the_whole_clip():
    frames = np.repeat(np.arange(40, dtype=np.uint8), 8 * 8 * 3).reshape(40, 8, 8, 3)
    film = drawing.film(frames, seconds=2.5, alt="a clip")
    assert 'width="128" height="8"' in film  # 16 frames
    assert "--frames:16;--seconds:2.50s" in film
    large = drawing.film(np.zeros((2, 224, 224, 3), np.uint8), 1.0, "")
    assert 'width="224" height="112"' in large


def edges(mask):
    """Count the boundaries between assigned and other patches."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1))).astype(int)
    return np.abs(np.diff(padded, axis=1)).sum() + np.abs(np.diff(padded, axis=2)).sum()


def test_claimed_patches_are_outlined_and_the_others_dimmed():
    mask = np.random.default_rng(0).random((3, 4, 4)) < 0.5
    dim, edge = re.findall(r' d="([^"]*)"', drawing.claimed(mask))
    assert dim.count("M") == (~mask).sum()
    assert edge.count("M") == edges(mask)
    whole = drawing.claimed(np.ones((1, 2, 2), bool))
    assert 'class="dim" d=""' in whole


def test_the_target_lies_in_its_windows_frame():
    assert 'cx="3.25" cy="0.75"' in drawing.target(Point(window=3, y=0.75, x=0.25))


def test_a_hidden_object_has_no_box():
    assert drawing.box(0, np.zeros((4, 4), bool)) == ""


def test_charts_stay_within_their_frame_and_leave_gaps():
    series = drawing.Series("loss", "--blue", [1.0, 2.0, 3.0, 4.0], [5.0, math.nan, 1e-3, 2.0])
    chart = drawing.lines([series], "a chart")
    raw = re.search(r'class="raw"[^>]* d="([^"]*)"', chart)
    assert raw and raw[1].count("M") == 2  # a gap
    numbers = [float(number) for number in re.findall(r"[ML]([\d.]+) ([\d.]+)", raw[1])[0]]
    assert 0 <= numbers[0] <= 420 and 0 <= numbers[1] <= 190
    assert "nothing was logged" in drawing.lines([], "an empty chart")
    flat = drawing.lines([drawing.Series("x", "--blue", [1.0], [0.0])], "one point")
    assert "nan" not in flat


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.0, 0.2), (0.0, 7.3), (3.0, 1e5), (0.0, 1e-3)]
)
def test_ticks_are_few_round_and_inside(low, high):
    ticks = drawing.ticks(low, high)
    assert 3 <= len(ticks) <= 9
    assert low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-9
    assert all(len(f"{tick:g}".replace(".", "").strip("0")) <= 6 for tick in ticks)


def test_matrix_cells_are_as_strong_as_the_windows_are_alike():
    values = np.array([[1.0, 0.5], [0.5, 1.0]])
    matrix = drawing.matrix(values, np.array([True, False]), low=0.0)
    assert matrix.count('fill-opacity="1.000"') == 2
    assert matrix.count('fill-opacity="0.500"') == 2
    assert matrix.count('class="pasted"') == matrix.count('class="around"') == 2


def test_curves_that_were_not_logged_are_left_out():
    html = curves.training([{"step": 1, "contrast": 2.0}], of="Of a run.")
    assert "Global contrastive loss" in html
    assert "Temporal grouping loss" not in html
