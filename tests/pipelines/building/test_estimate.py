"""The sample is fair and repeatable; totals follow a ratio estimator."""

import collections
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.building import estimate
from pipelines.sources.clip_request import ClipRequest, reject


def row(video: int, number: int) -> ClipRequest:
    return ClipRequest(
        clip_id=f"v{video}_{number}",
        video_id=f"v{video}",
        start_us=number,
        end_us=number + 1,
        caption="a man",
        labels=(),
        source_row=f"rows.csv:{video}-{number}",
    )


ROWS = [row(video, number) for video in range(40) for number in range(1 + video % 3)]


@given(st.permutations(ROWS), st.integers(1, 45))
def test_the_sample_is_independent_of_order_and_has_whole_videos(rows, videos):
    bad = reject("read", "row_columns", "two", source_row="rows.csv:1")
    drawn = estimate.draw([*rows, bad], videos)
    assert (drawn.rows, drawn.rejects) == (len(ROWS) + 1, {"row_columns": 1})
    assert len(drawn.drawn) == min(videos, 40)
    usual = estimate.draw(ROWS, videos).drawn
    assert [of[0].video_id for of in drawn.drawn] == [of[0].video_id for of in usual]
    counts = collections.Counter(row.video_id for row in ROWS)
    assert all(len(of) == counts[of[0].video_id] for of in drawn.drawn)


def test_the_interval_has_its_stated_coverage():
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 6, 5000)
    values = rows * rng.gamma(4.0, 10.0, 5000)
    held = 0
    for _ in range(400):
        sample = rng.choice(5000, 60, replace=False)
        told = estimate.total(int(rows.sum()), rows[sample].tolist(), values[sample].tolist())
        held += abs(told.value - values.sum()) < 1.96 * told.error
    assert 0.90 < held / 400 < 0.99


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_video):
    folder = tmp_path_factory.mktemp("estimate")
    (folder / "videos").mkdir()
    lines = []
    for number in range(6):
        video_id = f"estimate-{number:02d}"
        if number:
            make_video(folder / "videos" / f"{video_id}.mp4")
        lines += [f"{video_id},{i * 1_000_000},{(i + 1) * 1_000_000},a man" for i in range(2)]
    (folder / "rows.csv").write_text("\n".join([*lines, "no,row"]) + "\n")
    return folder


def test_a_sample_of_all_videos_equals_the_build(cli, inputs):
    options = ["videocc", "--annotations", inputs / "rows.csv", "--videos", inputs / "videos"]
    options += ["--frames", "4", "--short-side", "32"]
    built = cli("build", *options, "--out", inputs / "out", "--shards", "2")
    assert built.returncode == 0, built.stderr
    before = sorted(inputs.rglob("*"))
    done = cli("estimate", *options, "--sample", "6", "--workers", "4", "--price", "0.5")
    assert done.returncode == 0, done.stderr
    assert sorted(inputs.rglob("*")) == before
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert told["sample"].startswith("6 videos, 12 rows, ")
    assert told["sample"].endswith("; rejects: video_missing 2")
    assert told["rows"] == "13, 12 of them to decode; rejects: row_columns 1"
    assert told["records"].startswith("10 ± ")
    size = sum(path.stat().st_size for path in (inputs / "out").glob("*.tfrecord"))
    assert told["size"].startswith(f"{size / 1000:.3g} kB ± ")
    assert re.fullmatch(
        r"\S+ (s|min) ± \S+ (s|min) with one worker, \S+ (s|min) with --workers 4, .*",
        told["decoding"],
    )
    assert told["cost"].endswith(" at 0.5 per worker-hour")


def test_impossible_estimates_are_refused(cli, inputs):
    options = ["videocc", "--annotations", inputs / "rows.csv", "--videos", inputs / "videos"]
    done = cli("estimate", *options, "--min-clip", "9")
    assert done.returncode == 1
    assert "all 13 rows are rejected" in done.stderr
    done = cli("estimate", *options, "--widen-to", "4")
    assert done.returncode == 2
    assert "--widen-to does not apply to the source videocc" in done.stderr
