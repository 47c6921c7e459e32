"""Moments of an index against a search of every video."""

import json

import numpy as np
import pytest

import svilm
from trainer.cli.main import main
from trainer.index import moments
from trainer.index.queries import Filters, QueryError
from trainer.inference.moments import find_by_cosine

VIDEOS, WINDOWS, STRIDE_US, WINDOW_US = 10, 8, 500_000, 1_000_000


def cut(clip, number):
    """Make a clip a sliding window: 8 of each video, whose first and last are cut short."""
    video, place = divmod(number, WINDOWS)
    clip.video_id, clip.caption = f"video-{video}", ""
    middle = STRIDE_US * place + STRIDE_US // 2
    clip.start_us = max(0, middle - WINDOW_US // 2)
    clip.end_us = min(WINDOWS * STRIDE_US, middle + WINDOW_US // 2)
    clip.labels.append("odd" if video % 2 else "even")


@pytest.fixture(scope="module")
def index(build, tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("moments")
    windows = write_snapshot_at(
        folder / "windows", clips=VIDEOS * WINDOWS, height=18, width=24, annotate=cut
    )
    other = write_snapshot_at(folder / "other", clips=WINDOWS, height=18, width=24, annotate=cut)
    other.edit_manifest(dataset="other")  # its video has an id of the first snapshot
    assert build(folder / "index", windows.folder, other.folder)
    return svilm.load(folder / "index")


@pytest.fixture(autouse=True)
def few_at_first(monkeypatch):
    monkeypatch.setattr(moments, "_FIRST", 2)


def every_moment(index, text):
    """Return the spans of every video, best first, without the order of the search."""
    (query,) = index.encoder.texts([text])
    cosines = index.clips(np.arange(len(index))) @ query
    found = []
    for first in range(0, len(index), WINDOWS):
        rows = np.arange(first, first + WINDOWS)
        times = np.stack([index.columns[name][rows] for name in ("start_us", "end_us")], axis=1)
        spans = find_by_cosine(cosines[rows], times, 10, overlap=0.0)
        dataset = "test" if first < VIDEOS * WINDOWS else "other"
        found += [
            (one.cosine, dataset, f"video-{first // WINDOWS % VIDEOS}", one.start_us, one.end_us)
            for place, one in enumerate(spans)
            if place == 0 or one.score > 0
        ]
    return sorted(found, reverse=True)


def as_rows(hits):
    return [(hit.score, hit.dataset, hit.video_id, hit.start_us, hit.end_us) for hit in hits]


def check_same(hits, expected):
    assert [row[1:] for row in as_rows(hits)] == [row[1:] for row in expected]
    assert [hit.score for hit in hits] == pytest.approx([row[0] for row in expected], abs=2e-6)


@pytest.mark.parametrize("top", [1, 4, 500])
def test_the_best_spans_are_those_of_a_search_of_every_video(index, top):
    expected = every_moment(index, "a red ring")
    assert len(expected) > VIDEOS + 1  # some videos have several
    hits = index.moments("a red ring", top=top)
    check_same(hits, expected[:top])
    if top == 4:
        assert index.moments("a red ring", top=2, offset=2) == hits[2:]


def test_spans_of_a_video_do_not_overlap_and_end_with_it(index):
    hits = index.moments("a red ring", top=500)
    assert len({(hit.dataset, hit.video_id) for hit in hits}) == VIDEOS + 1
    for hit in hits:
        assert 0 <= hit.start_us < hit.end_us <= WINDOWS * STRIDE_US
        assert hit.start_us % STRIDE_US == hit.end_us % STRIDE_US == 0
        for other in hits:
            if other is not hit and (other.dataset, other.video_id) == (hit.dataset, hit.video_id):
                assert other.end_us <= hit.start_us or hit.end_us <= other.start_us


def test_filters_apply_to_spans_and_windows(index):
    expected = every_moment(index, "a red ring")
    every = index.moments("a red ring", top=500)
    firsts = {}
    for hit in every:
        firsts.setdefault((hit.dataset, hit.video_id), hit)
    best = index.moments("a red ring", top=500, each_video=True)
    assert len(best) == len(firsts) == VIDEOS + 1
    for filters, kept in (
        (Filters(min_us=1_000_000), lambda row: row[4] - row[3] >= 1_000_000),
        (Filters(max_us=1_000_000), lambda row: row[4] - row[3] <= 1_000_000),
        (Filters(videos=("video-0",)), lambda row: row[2] == "video-0"),
        (Filters(datasets=("other",)), lambda row: row[1] == "other"),
        (Filters(labels=("odd",)), lambda row: row[1] == "test" and int(row[2][-1]) % 2),
        (Filters(min_score=every[5].score), lambda row: row[0] >= expected[5][0]),
    ):
        hits = index.moments("a red ring", filters=filters, top=500)
        check_same(hits, [row for row in expected if kept(row)])


def test_a_window_is_found_by_its_vector_and_its_id(index):
    (vector,) = index.clips([35])  # the fourth window of video-4
    (hit,) = index.moments(like=vector, top=1)
    assert index.moments(like=index.columns.text(35)["clip_id"], top=1) == [hit]
    assert hit.video_id == "video-4"
    assert hit.start_us <= 3 * STRIDE_US and hit.end_us >= 4 * STRIDE_US


def test_a_query_without_a_text_or_of_no_results_is_refused(index):
    with pytest.raises(QueryError, match="the query is empty"):
        index.moments()
    with pytest.raises(QueryError, match="top 0 and offset 0 are out of range"):
        index.moments("a ring", top=0)


def test_the_command_prints_the_spans(index, tmp_path, capsys):
    out = tmp_path / "found.json"
    argv = ["search", "a red ring", "--moments", f"--index={index.folder}"]
    assert main([*argv, "--top=3", f"--json={out}"]) == 0
    hits = index.moments("a red ring", top=3)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [hit.video_id for hit in hits]
    assert f"00:{hits[0].start_us / 1e6:06.3f}–00:{hits[0].end_us / 1e6:06.3f}" in lines[0]
    results = json.loads(out.read_text())["results"]
    assert results == [json.loads(json.dumps(vars(hit))) for hit in hits]
    assert main([*argv, "--each-video", "--video=video-3", "--offset=1"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["--noun=ring", "--out=a.png"])
def test_options_of_clips_are_refused(index, option, capsys):
    assert main(["search", "a ring", "--moments", f"--index={index.folder}", option]) == 2
    assert f"{option.partition('=')[0]} applies only to clips" in capsys.readouterr().err


def test_a_snapshot_has_no_moments(capsys):
    assert main(["search", "a ring", "--moments", "--run=r", "--snapshot=s"]) == 2
    assert "--moments applies only to --index" in capsys.readouterr().err
