"""Invented examples in the formats of HMDB51 (Kuehne et al., 2011) and MIL-NCE's table."""

import collections
import io
from typing import Any

import pytest

from pipelines.decoding.spans import TO_THE_END
from pipelines.sources import hmdb51
from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import SourceOptions

TABLE = b"""video_id,label,split1,split2,split3
(HQ)_Rock_&_Climbing_#1.avi,climb_test,1,2,0
b.avi,brush_hair_test,2,0,1
c.avi,brush_hair_test,0,1,1
"""


def read(data=TABLE, name="hmdb51.csv", **options) -> list[Any]:
    return list(hmdb51.read(io.BytesIO(data), name, SourceOptions(**options)))


def kept(rows) -> list[Any]:
    return [(row.video_id, *row.labels) for row in rows if isinstance(row, ClipRequest)]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (dict(subset="train"), [("(HQ)_Rock_&_Climbing_#1", "climb")]),
        (dict(subset="test"), [("b", "brush_hair")]),
        (dict(), [("(HQ)_Rock_&_Climbing_#1", "climb"), ("b", "brush_hair")]),
        (dict(subset="test", fold=2), [("(HQ)_Rock_&_Climbing_#1", "climb")]),
        (dict(subset="train", fold=3), [("b", "brush_hair"), ("c", "brush_hair")]),
    ],
)
def test_a_table_of_all_splits(options, found):
    rows = read(**options)
    assert kept(rows) == found
    assert len(rows) == 3
    assert {row.reason for row in rows if not isinstance(row, ClipRequest)} <= {"other_split"}


def test_a_clip_is_a_whole_file_with_a_quoted_id():
    row = read()[0]
    assert isinstance(row, ClipRequest)
    assert (row.start_us, row.end_us, row.caption) == (0, TO_THE_END, "")
    assert row.clip_id.startswith("%28HQ%29_Rock_%26_Climbing_%231_0_0_")


def test_one_file_per_class_and_split():
    lines = b"a!.avi 1 \nb.avi 2 \nc d.avi 0 \n"
    rows = read(lines, "draw_sword_test_split2.txt", fold=2, subset="train")
    assert kept(rows) == [("a!", "draw_sword")]
    assert [row.source_row for row in rows] == [
        f"draw_sword_test_split2.txt:{i}" for i in (1, 2, 3)
    ]
    assert kept(read(lines, "draw_sword_test_split2.txt", subset="train")) == []


def test_invalid_lines_have_reasons():
    assert [
        getattr(row, "reason", "") for row in read(b"a.avi 3\na.avi\n", "x_test_split1.txt")
    ] == ["row_columns"] * 2
    assert [getattr(row, "reason", "") for row in read(b"a.avi 1\n", "notes.txt")] == [
        "row_columns"
    ]
    assert [getattr(row, "reason", "") for row in read(b"video_id,label\na.avi,b_test\n")] == [
        "row_columns"
    ]
    (row,) = read(b"video_id,label,split1,split2,split3\n../a.avi,b_test,1,1,1\n")
    assert getattr(row, "reason", "") == "video_id_invalid"


def test_the_table_of_the_data_set(real_data):
    path = real_data / "hmdb51" / "hmdb51.csv"
    data = path.read_bytes()
    for fold in (1, 2, 3):
        for subset, count, of_class in (("train", 3570, 70), ("test", 1530, 30)):
            rows = read(data, path.name, subset=subset, fold=fold)
            clips = kept(rows)
            assert (len(rows), len(clips), len({clip[0] for clip in clips})) == (6766, count, count)
            by_class = collections.Counter(label for _, label in clips)
            assert len(by_class) == 51
            assert set(by_class.values()) == {of_class}
            rejected = [row.reason for row in rows if not isinstance(row, ClipRequest)]
            assert set(rejected) == {"other_split"}
