"""Invented examples in the format of ActivityNet Captions (Krishna et al., 2017)."""

import io
import json
from typing import Any

import pytest

from pipelines.sources import activitynet, json_stream
from pipelines.sources.clip_request import AnnotationError, ClipRequest
from protos.v1.manifest_pb2 import Reject, SourceOptions

TWO = {
    "v_kitchen-001": {
        "duration": 40.5,
        "timestamps": [[0, 10.23], [9.5, 41.0]],
        "sentences": ["A woman cuts an onion.", "  She puts it in a pan."],
    },
    "v_-street_0-2": {"duration": 9, "timestamps": [[0.28, 9]], "sentences": ["A man runs."]},
}


def read(value, **options) -> list[Any]:
    data = value if isinstance(value, str) else json.dumps(value)
    file = io.BytesIO(data.encode())
    return list(activitynet.read(file, "val_1.json", SourceOptions(**options)))


def video(times, sentences=("A man runs.",), key="v_kitchen-001"):
    return {key: {"duration": 9, "timestamps": times, "sentences": list(sentences)}}


def test_a_video_without_sentences_is_a_reject():
    empty = video([], [], key="v_a") | TWO | video([], [], key="true")
    rows = read(empty)
    assert [row.source_row for row in rows] == [f"val_1.json:{i}" for i in range(1, 6)]
    assert [(row.reason, row.video_id) for row in rows if isinstance(row, Reject)] == [
        ("not_annotated", "a"),
        ("not_annotated", "true"),
    ]


def test_sentences_become_clips():
    rows = read(TWO)
    assert [
        (row.video_id, row.start_us, row.end_us, row.caption, row.source_row) for row in rows
    ] == [
        ("kitchen-001", 0, 10_230_000, "A woman cuts an onion.", "val_1.json:1"),
        ("kitchen-001", 9_500_000, 41_000_000, "She puts it in a pan.", "val_1.json:2"),
        ("-street_0-2", 280_000, 9_000_000, "A man runs.", "val_1.json:3"),
    ]


def test_a_stride_cuts_whole_videos_into_windows_without_captions():
    rows = read(
        {"v_kitchen-002": {"duration": 4.5}} | TWO, window_us=4_000_000, stride_us=2_000_000
    )
    assert [(row.start_us, row.end_us) for row in rows if row.video_id == "kitchen-002"] == [
        (0, 3_000_000),
        (1_000_000, 4_500_000),
    ]
    assert {(row.caption, row.labels) for row in rows} == {("", ())}
    assert [row.end_us for row in rows if row.video_id == "-street_0-2"][-1] == 9_000_000
    alone = read(TWO, stride_us=4_000_000)  # windows of 4 s by default
    assert alone == read(TWO, window_us=4_000_000)


@pytest.mark.parametrize("duration", [None, "nine", 0, -1, float("nan"), 90_000])
def test_a_video_without_a_valid_duration_has_no_windows(duration):
    rows = read({"v_a": {"duration": duration}} | TWO, window_us=1_000_000)
    assert [row.video_id for row in rows if isinstance(row, Reject)] == ["a"]
    assert len(rows) > len(TWO)


def test_paragraphs_have_no_windows():
    with pytest.raises(AnnotationError, match="--paragraphs"):
        read(TWO, paragraphs=True, window_us=1_000_000)


def test_paragraphs_become_clips():
    first, second = read(TWO, paragraphs=True)
    assert (first.start_us, first.end_us) == (0, 40_500_000)
    assert first.caption == "A woman cuts an onion. She puts it in a pan."
    assert (second.end_us, second.caption) == (9_000_000, "A man runs.")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (video([[3, 3]]), "span_empty"),
        (video([[3, 2]]), "span_empty"),
        (video([[-1, 2]]), "time_negative"),
        (video([["a", 2]]), "time_invalid"),
        (video([[0]]), "time_invalid"),
        (video([7]), "time_invalid"),
        (video([[0, True]]), "time_invalid"),
        (video([[0, 1], [1, 2]]), "list_lengths"),
        (video([[0, 1]], [" "]), "caption_empty"),
        (video([[0, 1]], [None]), "caption_invalid"),
        (video([[0, 1]], key="v_../../etc/"), "video_id_invalid"),
        (video(None), "row_columns"),
        ({"v_kitchen-001": ["not", "a", "video"]}, "row_columns"),
    ],
)
def test_bad_entries_have_reasons(value, reason):
    rows = read(value)
    assert [row.reason for row in rows] == [reason]
    assert rows[0].source_row == "val_1.json:1"


@pytest.mark.parametrize(
    "changes", [{"duration": None}, {"sentences": ["a", 1]}, {"sentences": "a"}]
)
def test_bad_paragraphs_are_rejects(changes):
    entry = video([[0, 1], [1, 2]], ["a", "b"])
    entry["v_kitchen-001"] |= changes
    (row,) = read(entry, paragraphs=True)
    assert isinstance(row, Reject)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("", "line 1: it breaks off"),
        ("[1, 2", r"'\[' where '{' should be"),
        ("\x00", r"'\\x00' where"),
        ('{"v_kitchen-001": ', "Expecting value"),
        ('{"v_kitchen-001": 7', "breaks off"),
        ('{\n"v_kitchen-001": {}\n,}', "line 3: no name in quotes"),
        ('{"v_kitchen-001": {},\n "v_ki', "line 2: Unterminated string"),
        ('{"v_kitchen-001": {}} {}', "more text after the end"),
        ('{"v_kitchen-001": ' + "[" * 100_000, "too many levels of brackets"),
    ],
)
def test_a_truncated_file_is_refused(data, told):
    with pytest.raises(AnnotationError, match=told) as error:
        read(data)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_an_endless_value_uses_bounded_memory(monkeypatch):
    monkeypatch.setattr(json_stream, "_VALUE_CHARACTERS", 100_000)
    with pytest.raises(AnnotationError, match="a value of over 100,000 characters"):
        read('{"v_kitchen-001": [' + "0, " * 10_000_000)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "1e1000000000", "9" * 5000])
def test_invalid_times_reject_only_their_row(number):
    data = json.dumps(video([[0, 1], [0, 7], [1, 2]], ["a", "b", "c"])).replace("7", number)
    rows = read(data)
    assert [getattr(row, "reason", None) for row in rows] == [None, "time_invalid", None]
    assert "end" in rows[1].message and len(rows[1].message) < 100


def test_invalid_utf_8_rejects_only_its_row():
    data = json.dumps(video([[0, 1], [0, 7], [1, 2]], ["a", "b", "c"])).encode()
    file = io.BytesIO(data.replace(b'"b"', b'"caf\xe9"'))
    rows: list[Any] = list(activitynet.read(file, "val_1.json", SourceOptions()))
    assert [getattr(row, "reason", None) for row in rows] == [None, "caption_invalid", None]


def test_depth_is_bounded():
    deep: list = []
    for _ in range(70):
        deep = [deep]
    first, second = read(video(deep) | video([[0, 1]], key="v_kitchen-002"))
    assert (first.reason, first.video_id) == ("row_too_deep", "kitchen-001")
    assert isinstance(second, ClipRequest)


def test_a_repeated_name_rejects_the_entry():
    text = '{"v_kitchen-001": {"timestamps": [[0, 1]], "sentences": ["a"], "sentences": ["b"]}}'
    (row,) = read(text)
    assert row.reason == "row_columns" and "the name 'sentences' twice" in row.message


def test_a_byte_order_mark_is_skipped():
    assert len(read("\ufeff" + json.dumps(TWO))) == 3


def test_a_repeated_video_is_read_twice():
    once = json.dumps(TWO)[1:-1]
    assert len(read(f"{{{once}, {once}}}")) == 6


def test_empty_captions_may_be_kept():
    (row,) = read(video([[0, 1]], [" "]), keep_empty_captions=True)
    assert isinstance(row, ClipRequest) and row.caption == ""


def test_the_original_file(real_data):
    path = real_data / "activitynet_captions" / "val_1_first600.json"
    for paragraphs, count in ((False, 2139), (True, 600)):
        with path.open("rb") as file:
            options = SourceOptions(paragraphs=paragraphs)
            rows = list(activitynet.read(file, path.name, options))
        assert len(rows) == count
        assert all(isinstance(row, ClipRequest) for row in rows)
