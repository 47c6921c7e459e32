import io
import json
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.clip_request import ClipRequest
from pipelines.sources import generic
from protos.v1.manifest_pb2 import Reject, SourceOptions

ROWS = [
    {"video": "a", "start": 0.5, "end": 2.0, "caption": "a man, singing", "labels": ["sing", "m"]},
    {"video": "b-2", "start": 1.0, "end": 3.25, "caption": "a dog", "labels": []},
]


def delimited(rows, delimiter):
    lines = [delimiter.join(ROWS[0])]
    for row in rows:
        fields = [*row.values()]
        fields[-1] = "; ".join(fields[-1])
        lines.append(delimiter.join(f'"{field}"' for field in fields))
    return ("\n".join(lines) + "\n").encode()


def parquet(rows):
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data)
    return data.getvalue()


def read(data, name, **options) -> list[Any]:
    return list(generic.read(io.BytesIO(data), name, SourceOptions(**options)))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.csv", delimited(ROWS, ",")),
        ("rows.CSV", b"\xef\xbb\xbf" + delimited(ROWS, ",")),
        ("rows.tsv", delimited(ROWS, "\t")),
        ("rows.jsonl", "\n".join(map(json.dumps, ROWS)).encode()),
        ("rows.parquet", parquet(ROWS)),
    ],
)
def test_every_form_gives_the_same_clips(name, data):
    first, second = read(data, name)
    assert (first.video_id, first.start_us, first.end_us) == ("a", 500_000, 2_000_000)
    assert (first.caption, first.labels) == ("a man, singing", ("sing", "m"))
    assert (second.video_id, second.end_us, second.labels) == ("b-2", 3_250_000, ())
    assert [row.source_row for row in (first, second)] == [f"{name}:1", f"{name}:2"]


def test_columns_and_unit():
    data = b"clip\tlength\ttext\n7\t2500\ta dog\n"
    columns = {"video": "clip", "end": "length", "caption": "text"}
    (row,) = read(data, "rows.tsv", columns=columns, time_unit="ms")
    assert (row.video_id, row.start_us, row.end_us, row.caption) == ("7", 0, 2_500_000, "a dog")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"video": "a/b"}, "video_id_invalid"),
        ({"video": "https://example.org/a.mp4"}, "video_id_invalid"),
        ({"video": None}, "video_id_invalid"),
        ({"video": "a" * 201}, "video_id_invalid"),
        ({"start": None}, "time_invalid"),
        ({"start": "0:10"}, "time_invalid"),
        ({"end": [2]}, "time_invalid"),
        ({"end": 1e300}, "time_invalid"),
        ({"end": 10**400}, "time_invalid"),
        ({"caption": 7}, "caption_invalid"),
        ({"caption": "\ud83d"}, "caption_invalid"),
        ({"caption": "a\0"}, "caption_invalid"),
        ({"labels": 7}, "labels_invalid"),
        ({"labels": [7]}, "labels_invalid"),
        ({"labels": ["\ud83d"]}, "labels_invalid"),
    ],
)
def test_bad_rows_have_reasons(changes, reason):
    line = json.dumps({**ROWS[0], **changes}).encode()
    assert [row.reason for row in read(line, "rows.jsonl")] == [reason]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_a_column_that_is_not_there_is_named(name):
    rows = [{"id": "a", "end": 2.0, "caption": "a dog"}]
    data = {
        "rows.csv": b"id,end,caption\na,2,a dog\n",
        "rows.tsv": b"id\tend\tcaption\na\t2\ta dog\n",
        "rows.jsonl": json.dumps(rows[0]).encode(),
        "rows.parquet": parquet(rows),
    }[name]
    (row,) = read(data, name)
    assert row.reason == "row_columns" and "no column 'video'" in row.message
    (row,) = read(data, name, columns={"video": "id"})
    assert isinstance(row, ClipRequest)
    (row,) = read(data, name, columns={"video": "id", "start": "begin"})
    assert row.reason == "row_columns" and "no column 'begin'" in row.message


@pytest.mark.parametrize("line", [b"[1]", b"{", b"[" * 100_000, b"7", b"\xff"])
def test_a_line_that_is_no_object_takes_no_other_with_it(line):
    good = json.dumps(ROWS[0]).encode()
    rows = read(b"\n".join([good, line, good]), "rows.jsonl")
    assert [isinstance(row, Reject) for row in rows] == [False, True, False]


def test_parquet_tells_its_rows_and_its_faults():
    data = parquet(ROWS * 1500)
    assert generic.parquet_rows(io.BytesIO(data)) == len(read(data, "a.parquet")) == 3000
    (row,) = read(data[:-100], "a.parquet")
    assert row.reason == "file_damaged"
    assert generic.parquet_rows(io.BytesIO(data[:-100])) == 0


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet"]))
def test_any_bytes_are_rows_or_rejects(data, name):
    for row in read(data, name):
        assert isinstance(row, ClipRequest | Reject)
