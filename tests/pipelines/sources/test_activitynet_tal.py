"""Invented examples in the formats of ActivityNet 1.3 (Caba Heilbron et al.) and G-TAD."""

import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from pipelines.sources import activitynet_tal
from pipelines.sources.clip_request import AnnotationError, ClipRequest, Segment
from protos.v1.manifest_pb2 import SourceOptions

VIDEO = "kitchen-001"
ANNOTATIONS = [
    {"label": "Fixing bicycle", "segment": [0.01, 7.15]},
    {"label": "Fixing bicycle", "segment": [0.01, 7.15]},
    {"label": "Ballet", "segment": [3, 3]},
    {"label": "Ballet", "segment": [5, 90.5]},
]


def official(annotations=ANNOTATIONS, **changes):
    entry = {"subset": "training", "duration": 9.5, "url": "", "annotations": annotations}
    return {"version": "VERSION 1.3", "taxonomy": [], "database": {VIDEO: {**entry, **changes}}}


def read(value, subsets=None, **options) -> list[Any]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    files = {"a.json": data, **({"b.csv": subsets} if subsets else {})}
    return list(activitynet_tal.read_all(files, SourceOptions(**options)))


def test_windows_of_the_video_with_all_its_segments():
    rows = read(official(), window_us=4_000_000, stride_us=2_000_000)
    assert [(row.start_us, row.end_us) for row in rows] == [
        (0, 3_000_000),
        (1_000_000, 5_000_000),
        (3_000_000, 7_000_000),
        (5_000_000, 9_000_000),
        (7_000_000, 9_500_000),
    ]
    assert {row.video_id for row in rows} == {VIDEO}
    assert {row.video_duration_us for row in rows} == {9_500_000}
    assert [row.source_row for row in rows] == [f"a.json:{i}" for i in range(1, 6)]
    # Repeated and empty segments, and one past the video's end, stay unchanged.
    assert {row.segments for row in rows} == {
        (
            Segment(10_000, 7_150_000, "Fixing bicycle"),
            Segment(10_000, 7_150_000, "Fixing bicycle"),
            Segment(3_000_000, 3_000_000, "Ballet"),
            Segment(5_000_000, 90_500_000, "Ballet"),
        )
    }


def test_only_the_requested_subset_is_read():
    assert all(isinstance(row, ClipRequest) for row in read(official(), subset="training"))
    (row,) = read(official(), subset="validation")
    assert (row.reason, row.video_id) == ("other_split", VIDEO)


def test_videos_without_annotations_have_windows():
    rows = read(official([], subset="testing"), subset="testing")
    assert len(rows) == 2
    assert all(row.segments == () for row in rows)


def test_gtads_files():
    gtad = {
        f"v_{VIDEO}": {
            "duration_second": 9.5,
            "duration_frame": 237,
            "annotations": ANNOTATIONS,
            "feature_frame": 224,
        },
        "v_other---001": {"duration_second": 9.5, "annotations": []},
    }
    table = "video,numFrame,seconds,fps,rfps,subset,featureFrame\r\n"
    table += f"v_{VIDEO},237,9.5,25,25,validation,224\r\n"
    _, second, other = read(gtad, table.encode(), subset="validation")
    (_, official_second) = read(official())
    assert second == official_second
    assert other.reason == "other_split"
    # The table lacks some videos of the official file.
    assert [row.reason for row in read(official(), table.encode(), subset="training")] == [
        "other_split"
    ]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"label": "a", "segment": [3, 2]}, "segment_invalid"),
        ({"label": "a", "segment": [-1, 2]}, "segment_invalid"),
        ({"label": "a", "segment": [1]}, "segment_invalid"),
        ({"label": "", "segment": [1, 2]}, "segment_invalid"),
        ({"label": 7, "segment": [1, 2]}, "segment_invalid"),
        ({"label": "\ud83d", "segment": [1, 2]}, "segment_invalid"),
        ({"segment": [1, 2]}, "segment_invalid"),
        ({"label": "a", "segment": [None, 2]}, "time_invalid"),
    ],
)
def test_invalid_segments_are_separate_rows(annotation, reason):
    *windows, row = read(official([ANNOTATIONS[0], annotation]))
    assert [len(window.segments) for window in windows] == [1, 1]
    assert (row.reason, row.video_id, row.source_row) == (reason, VIDEO, "a.json:3")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (official(duration=None), "time_invalid"),
        (official(duration=0), "time_invalid"),
        (official(duration=1e9), "time_invalid"),
        (official(annotations=None), "row_columns"),
        ({"database": {VIDEO: 7}}, "row_columns"),
        ({"database": {"../../etc/x": official()["database"][VIDEO]}}, "video_id_invalid"),
    ],
)
def test_bad_entries_have_reasons(value, reason):
    (row,) = read(value)
    assert row.reason == reason


@pytest.mark.parametrize(
    "value", [{"database": 7}, b"[1, 2", b"{", b'{"a": {}, "a": {}}', b"[" * 9999, b"video\na\n"]
)
def test_other_files_are_refused(value):
    with pytest.raises(AnnotationError, match=r"^a\.(json|csv) |no JSON object"):
        read(value)


ENTRY = {"subset": "training", "duration": 9.5, "annotations": ANNOTATIONS}


@pytest.mark.parametrize(
    "value",
    [
        {"'database": {VIDEO: ENTRY}},
        {"database": {VIDEO: ENTRY}, "other-video": ENTRY},
        {"database": {VIDEO: {"subset": "training", "other-video": ENTRY}}},
    ],
)
def test_entries_that_would_be_ignored_are_an_error(value):
    with pytest.raises(AnnotationError, match=r"a\.json has entries of videos in .*database"):
        read(value)


@pytest.mark.parametrize("subset", ["training", "validation"])
def test_a_video_in_two_subsets_is_rejected(subset):
    table = f"video,subset\nv_{VIDEO},training\nv_{VIDEO},validation\n".encode()
    (row,) = read(official(), table, subset=subset)
    assert (row.reason, row.message) == (
        "other_split",
        f"of training and of validation, not of {subset} alone",
    )
    assert all(isinstance(row, ClipRequest) for row in read(official(), table))


def test_a_damaged_list_of_subsets_is_refused():
    with pytest.raises(AnnotationError, match=r"csv:3: 1 columns where the header has 2"):
        read(official(), b"video,subset\nv_a,training\nv_b\n")


@hypothesis.given(st.integers(1, 10**9), st.integers(1, 10**7), st.integers(10**5, 10**7))
def test_windows_cover_the_whole_video(duration_us, window_us, stride_us):
    spans = activitynet_tal.windows(duration_us, window_us, stride_us)
    assert all(0 <= start < end <= duration_us for start, end in spans)
    assert all(end - start <= window_us for start, end in spans)
    assert spans == sorted(spans)
    assert abs(len(spans) * stride_us - duration_us) <= max(stride_us / 2, stride_us - duration_us)


def test_real_durations_are_covered(real_data):
    path = real_data / "activitynet_captions" / "val_1_first600.json"
    durations = [video["duration"] for video in json.loads(path.read_bytes()).values()]
    assert len(durations) == 600
    for duration in durations:
        spans = activitynet_tal.windows(round(duration * 1e6), 4_000_000, 2_000_000)
        assert spans[0][0] == 0 and spans[-1][1] >= duration * 1e6 - 1_000_000
