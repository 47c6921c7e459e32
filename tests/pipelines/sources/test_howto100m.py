"""Invented examples in the formats of HowTo100M (Miech et al., 2019)."""

import io
import json
from typing import Any

import pytest

from pipelines.sources import howto100m
from pipelines.sources.annotation_checks import cautions, stop_words_removed
from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import Reject, SourceOptions

TWO = {
    "bread_12345": {"start": [0.5, 4], "end": [3.75, 8.5], "text": ["take the flour", "and salt"]},
    "-tCQ4tCQdWx": {"text": ["so today we plant"], "start": [1], "end": [2]},
}
CSV = 'start,end,text\n0.5,3.75,take the flour\n4,8.5,"salt, then water"\n'


def read(data, name="raw_caption.json", **options) -> list[Any]:
    file = io.BytesIO(data if isinstance(data, bytes) else data.encode())
    return list(howto100m.read(file, name, SourceOptions(**options)))


def test_json():
    rows = read(json.dumps(TWO))
    assert [(row.video_id, row.start_us, row.end_us, row.caption) for row in rows] == [
        ("bread_12345", 500_000, 3_750_000, "take the flour"),
        ("bread_12345", 4_000_000, 8_500_000, "and salt"),
        ("-tCQ4tCQdWx", 1_000_000, 2_000_000, "so today we plant"),
    ]
    assert [row.source_row for row in rows] == [f"raw_caption.json:{i}" for i in (1, 2, 3)]


def test_a_video_without_captions_is_a_reject():
    (row,) = read(json.dumps({"a": {"start": [], "end": [], "text": []}}))
    assert (row.reason, row.video_id, row.source_row) == (
        "not_annotated",
        "a",
        "raw_caption.json:1",
    )


def test_one_csv_per_video():
    rows = read(CSV, "bread_12345.csv")
    assert [(row.video_id, row.start_us, row.caption) for row in rows] == [
        ("bread_12345", 500_000, "take the flour"),
        ("bread_12345", 4_000_000, "salt, then water"),
    ]


def test_short_clips_are_widened():
    first, second, third = read(json.dumps(TWO), widen_to_us=4_000_000)
    assert (first.start_us, first.end_us) == (125_000, 4_125_000)
    assert (second.start_us, second.end_us) == (4_000_000, 8_500_000)
    assert (third.start_us, third.end_us) == (0, 4_000_000)


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        ('{"bread_12345": {"start": [1], "end": [2], "text": []}}', "a.json", "list_lengths"),
        ('{"bread_12345": {"start": [1], "end": [2]}}', "a.json", "row_columns"),
        ('{"bread": {"start": [1], "end": [2], "text": ["a"]}}', "a.json", "video_id_invalid"),
        ('{"bread_12345": {"start": [NaN], "end": [2], "text": ["a"]}}', "a.json", "time_invalid"),
        ('{"bread_12345": {"start": [2], "end": [2], "text": ["a"]}}', "a.json", "span_empty"),
        ("start,end\n1,2\n", "bread_12345.csv", "row_columns"),
        ("start,end,text\n1,2\n", "bread_12345.csv", "row_columns"),
        ("start,end,text\n1,2,a\n", "notes.csv", "video_id_invalid"),
        ("start,end,text\none,2,a\n", "bread_12345.csv", "time_invalid"),
        ('start,end,text\n1,2,"a\n', "bread_12345.csv", "row_quote"),
        ('start,end,text\n1,2,"a" b\n', "bread_12345.csv", "row_stray_quote"),
        (b"start,end,text\n1,2,\xff\n", "bread_12345.csv", "row_not_utf8"),
        (b"\xff\n1,2,a\n", "bread_12345.csv", "row_not_utf8"),
    ],
)
def test_bad_rows_have_reasons(data, name, reason):
    assert [row.reason for row in read(data, name)] == [reason]


def test_memory_is_independent_of_file_size():
    class Endless(io.BytesIO):
        """A JSON object with a growing number of videos."""

        videos = 0

        def read(self, size=-1, /):
            assert size is not None and 0 <= size <= 1 << 20
            self.videos += 1
            entry = json.dumps({f"v{self.videos:010}": TWO["bread_12345"]})
            return ("{" if self.videos == 1 else ",").encode() + entry[1:-1].encode()

    file = Endless()
    rows = howto100m.read(file, "raw_caption.json", SourceOptions())
    for _ in range(20_000):
        assert isinstance(next(rows), ClipRequest)
    assert file.videos < 10_010


def test_captions_without_stop_words_give_a_warning():
    raw = ["so today we are going to plant a tree in the garden"] * 50
    clean = ["today going plant tree garden"] * 50
    assert cautions("howto100m", ["raw_caption.json"], raw) == []
    assert ["raw_caption.json" in line for line in cautions("howto100m", ["x"], clean)] == [True]
    assert not stop_words_removed(clean[:10])  # too few words for a warning
    assert not stop_words_removed(["男人 在 唱歌"] * 200)


def test_val_2_gives_a_warning():
    assert "second annotation" in cautions("activitynet", ["val_2.json"], ["A man runs."])[0]
    assert cautions("activitynet", ["val_1.json"], ["A man runs."]) == []


def test_the_original_files(real_data):
    rows: list[Any] = []
    for path in sorted((real_data / "howto100m").glob("*.csv")):
        with path.open("rb") as file:
            rows += howto100m.read(file, path.name, SourceOptions())
    assert len(rows) == 4400
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert rejects == []
    assert stop_words_removed([row.caption for row in rows])
