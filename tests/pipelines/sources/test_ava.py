"""Invented examples in the format of AVA v2.2 (Gu et al., 2018)."""

from typing import Any

import pytest

from pipelines.sources import ava
from pipelines.sources.clip_request import AnnotationError, Box, ClipRequest
from protos.v1.manifest_pb2 import SourceOptions

TRUTH = b"""-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1
-5KQ66BBWC4,0902,0.226,0.032,0.366,0.497,12,0
-5KQ66BBWC4,0903,0.226,0,0.366,1.000,12,0
"""
EXCLUDED = b"-5KQ66BBWC4,0903\r\nanother____,1000\r\n"
FOUND = b"""-5KQ66BBWC4,0904,0.1,0.2,0.3,0.4,,0.912345
-5KQ66BBWC4,0902,0.08,0.15,0.28,0.81,,0.998
"""


def read(options=None, **files) -> list[Any]:
    named = {f"{name}.csv": data for name, data in files.items()}
    return list(ava.read_all(named, options or SourceOptions()))


def test_keyframes_become_clips_with_boxes():
    first, second = read(truth=TRUTH)
    assert (first.video_id, first.start_us, first.end_us) == (
        "-5KQ66BBWC4",
        900_933_334,
        903_066_667,
    )
    assert first.boxes == (
        Box(902_000_000, 0.077, 0.151, 0.283, 0.811, ("80", "9"), "1"),
        Box(902_000_000, 0.226, 0.032, 0.366, 0.497, ("12",), "0"),
    )
    assert second.boxes == (Box(903_000_000, 0.226, 0.0, 0.366, 1.0, ("12",), "0"),)
    assert [row.source_row for row in (first, second)] == ["truth.csv:1", "truth.csv:4"]
    assert first.clip_id != second.clip_id


def test_a_repeated_line_does_not_repeat_its_action():
    first, second = read(truth=TRUTH + TRUTH)
    assert [box.labels for box in first.boxes] == [("80", "9"), ("12",)]
    assert [box.labels for box in second.boxes] == [("12",)]
    detected = b"a,0904,0.1,0.2,0.3,0.4,7,0.9\n"
    (row,) = read(found=detected * 3)
    assert [box.labels for box in row.boxes] == [("7",)]


def test_cut_videos_and_other_windows():
    first, second = read(SourceOptions(cut_at_us=902_000_000, window_us=2_000_000), truth=TRUTH)
    assert (first.start_us, first.end_us, first.boxes[0].time_us) == (0, 1_000_000, 0)
    assert (second.start_us, second.end_us, second.boxes[0].time_us) == (0, 2_000_000, 1_000_000)
    first, _ = read(SourceOptions(cut_at_us=903_000_000), truth=TRUTH)
    assert first.reason == "time_negative"


def test_excluded_times_are_rejects():
    first, second = read(truth=TRUTH, excluded=EXCLUDED)
    assert isinstance(first, ClipRequest)
    assert (second.reason, second.source_row) == ("excluded_time", "truth.csv:4")


def test_empty_keyframes_are_not_exclusions():
    rows = read(truth=b"-5KQ66BBWC4,0901\n" + TRUTH)
    assert [len(row.boxes) for row in rows[1:]] == [2, 1]
    assert (rows[0].reason, rows[0].source_row) == ("row_columns", "truth.csv:1")


@pytest.mark.parametrize("order", [("found", "truth"), ("truth", "found")])
def test_detections_with_and_without_truth(order):
    files = {"found": FOUND, "truth": TRUTH}
    rows = read(**{name: files[name] for name in order})
    rows.sort(key=lambda row: row.source_row.startswith("found"))
    assert [len(row.boxes) for row in rows] == [3, 1, 1]
    assert rows[0].boxes[2] == Box(902_000_000, 0.08, 0.15, 0.28, 0.81, (), "", 0.998)
    assert rows[2].boxes == (Box(904_000_000, 0.1, 0.2, 0.3, 0.4, (), "", 0.912345),)
    assert rows[2].source_row == "found.csv:1"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a,0902,0.077,0.151,0.283,0.811,80", "row_columns"),
        (b"a,902.5,0.077,0.151,0.283,0.811,80,1", "time_invalid"),
        (b"a,0902,0.283,0.151,0.283,0.811,80,1", "box_invalid"),
        (b"a,0902,0.077,0.151,1.2,0.811,80,1", "box_invalid"),
        (b"a,0902,nan,0.151,0.283,0.811,80,1", "box_invalid"),
        (b"a,0902,-0.1,0.151,0.283,0.811,80,1", "box_invalid"),
        (b"a,0902,0.077,0.151,0.283,0.811,stand,1", "box_invalid"),
        (b"a,0902,0.077,0.151,0.283,0.811,,1", "box_invalid"),
        (b"../a,0902,0.077,0.151,0.283,0.811,80,1", "video_id_invalid"),
        (b"a\xff,0902,0.077,0.151,0.283,0.811,80,1", "row_not_utf8"),
    ],
)
def test_invalid_lines_are_separate_rows(line, reason):
    rows = read(truth=TRUTH + line)
    assert len(rows) == 3
    assert rows[2].reason == reason


def test_damaged_exclusions_are_refused():
    with pytest.raises(
        AnnotationError, match=r"^excluded\.csv has no valid box, line 1: 3 columns"
    ):
        read(truth=TRUTH, excluded=b"-5KQ66BBWC4,0903,1\n" + EXCLUDED)


def test_bad_detections_and_exclusions_are_rejects():
    assert [row.reason for row in read(found=b"a,0902,0.1,0.1,0.2,0.2,,1.5\n")] == ["box_invalid"]
    assert [row.reason for row in read(excluded=b"a,soon\n")] == ["time_invalid"]
