import contextlib
import decimal
import io
import json
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import generic, lines, parquet
from pipelines.sources.clip_fields import microseconds
from pipelines.sources.clip_request import AnnotationError, ClipRequest, RowError
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


def parquet_file(rows):
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
        ("rows.parquet", parquet_file(ROWS)),
    ],
)
def test_every_format_gives_the_same_clips(name, data):
    first, second = read(data, name)
    assert (first.video_id, first.start_us, first.end_us) == ("a", 500_000, 2_000_000)
    assert (first.caption, first.labels) == ("a man, singing", ("sing", "m"))
    assert (second.video_id, second.end_us, second.labels) == ("b-2", 3_250_000, ())
    header = name.lower().endswith((".csv", ".tsv"))
    assert [row.source_row for row in (first, second)] == [
        f"{name}:{header + 1}",
        f"{name}:{header + 2}",
    ]


@pytest.mark.parametrize("name", ["\n", "a\r\nb", "\u2028", "\x85", "\x1c"])
def test_reject_messages_are_one_line(name):
    (row,) = read(json.dumps({"id": "b", "start": 1, "end": 2, name: "b"}).encode(), "a.jsonl")
    assert row.reason == "row_columns" and len(row.message.splitlines()) == 1


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
        ({"start": "0:10:00:12"}, "time_invalid"),
        ({"start": "0:60"}, "time_invalid"),
        ({"start": "0:99:00"}, "time_invalid"),
        ({"end": ":"}, "time_invalid"),
        ({"end": "0:0.5"}, "span_empty"),
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
def test_a_missing_column_is_named(name):
    rows = [{"id": "a", "end": 2.0, "caption": "a dog"}]
    data = {
        "rows.csv": b"id,end,caption\na,2,a dog\n",
        "rows.tsv": b"id\tend\tcaption\na\t2\ta dog\n",
        "rows.jsonl": json.dumps(rows[0]).encode(),
        "rows.parquet": parquet_file(rows),
    }[name]
    (row,) = read(data, name)
    assert row.reason == "row_columns" and "no column 'video'" in row.message
    (row,) = read(data, name, columns={"video": "id"})
    assert isinstance(row, ClipRequest)
    (row,) = read(data, name, columns={"video": "id", "start": "begin"})
    assert row.reason == "row_columns" and "no column 'begin'" in row.message


@pytest.mark.parametrize("line", [b"[1]", b"{", b"[" * 100_000, b"7", b"\xff"])
def test_an_invalid_line_rejects_only_itself(line):
    good = json.dumps(ROWS[0]).encode()
    rows = read(b"\n".join([good, line, good]), "rows.jsonl")
    assert [isinstance(row, Reject) for row in rows] == [False, True, False]


def test_parquet_rows_and_faults():
    data = parquet_file(ROWS * 1500)
    assert parquet.count(io.BytesIO(data)) == len(read(data, "a.parquet")) == 3000
    with pytest.raises(AnnotationError, match=r"a\.parquet is not valid Parquet from row 1:"):
        read(data[:-100], "a.parquet")
    assert parquet.count(io.BytesIO(data[:-100])) == 0


def test_a_damaged_row_group_is_an_error():
    file = io.BytesIO()
    table = pyarrow.Table.from_pylist(ROWS * 1500)
    pyarrow.parquet.write_table(table, file, row_group_size=1000, write_page_checksum=True)
    data = bytearray(file.getvalue())
    place = pyarrow.parquet.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    data[place + 40] ^= 1
    with pytest.raises(AnnotationError, match=r"a\.parquet is not valid Parquet from row \d+:"):
        read(bytes(data), "a.parquet")


def arrow(**columns):
    names = {"video": "a", "start": 0.0, "end": 1.0, "caption": "a dog"}
    arrays = [columns.get(name, pyarrow.array([value] * 2)) for name, value in names.items()]
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, [*names]), data)
    return data.getvalue()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pyarrow.timestamp("ns"), [1, 2**62]),
        (pyarrow.timestamp("ns", "Europe/Berlin"), [1, None]),
        (pyarrow.timestamp("s"), [2**50, -(2**50)]),
        (pyarrow.date32(), [2**31 - 1, 0]),
        (pyarrow.date64(), [86_400_000 * 2**30, 0]),
        (pyarrow.duration("s"), [2**60, -(2**62)]),
        (pyarrow.list_(pyarrow.timestamp("ns")), [[1], [2**62]]),
        (pyarrow.binary(), [b"1", b"\xff"]),
    ],
)
@pytest.mark.parametrize("column", ["video", "end", "caption"])
def test_parquet_values_of_any_type_are_rejects(kind, values, column):
    values = pyarrow.array(values, kind)
    first, second = read(arrow(**{column: values}), "a.parquet")
    assert {first.stage, second.stage} == {"plan"}
    assert first.source_row == "a.parquet:1" and second.row


@pytest.mark.parametrize(
    ("kind", "values", "us"),
    [
        (pyarrow.duration("ns"), [1_500_000_499, 3], [1_500_000, 0]),
        (pyarrow.duration("ms"), [1500, 3], [1_500_000, 3000]),
        (pyarrow.time64("ns"), [1_500_000_499, 3_000_001], [1_500_000, 3000]),
        (pyarrow.time32("s"), [2, 3], [2_000_000, 3_000_000]),
    ],
)
def test_parquet_durations_are_times(kind, values, us):
    values = pyarrow.array(values, kind)
    rows = read(arrow(end=values), "a.parquet", time_unit="ms")
    assert [getattr(row, "end_us", 0) for row in rows] == us


@pytest.mark.parametrize(
    ("kind", "text", "us"),
    [
        (pyarrow.decimal128(10, 3), "1.500", 1_500_000),
        (pyarrow.decimal128(38, 18), "12345678901.123456499999999999", 12_345_678_901_123_456),
        (pyarrow.decimal128(38, 0), "7", 7_000_000),
        (pyarrow.decimal256(76, 40), f"3.0000015{'0' * 32}1", 3_000_002),
        (pyarrow.decimal128(38, 38), "0.00000050000000000000000000000000000001", 1),
    ],
)
def test_parquet_decimals_are_exact_times(kind, text, us):
    values = pyarrow.array([decimal.Decimal(text)] * 2, kind)
    assert [row.end_us for row in read(arrow(end=values), "a.parquet")] == [us, us]


def test_a_huge_parquet_decimal_rejects_only_its_row():
    values = pyarrow.array([decimal.Decimal(10**37), decimal.Decimal(2)], pyarrow.decimal128(38, 0))
    first, second = read(arrow(end=values), "a.parquet")
    assert (first.reason, second.end_us) == ("time_invalid", 2_000_000)


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-Infinity", "1e99999999999", "1e12"])
def test_decimals_without_a_time_are_rejected(text):
    with pytest.raises(RowError, match=r"^end '.*' is no finite time$"):
        microseconds(decimal.Decimal(text), "end", "s")
    assert microseconds(decimal.Decimal("-1e-99999999999"), "end", "s") == 0


def test_a_csv_that_resembles_parquet_is_csv():
    rows = read(b"PAR1,video,end,caption\n1,a,2,a dog\n", "rows.txt")
    assert [row.video_id for row in rows] == ["a"]


def test_invalid_utf_8_in_parquet_rejects_only_its_row():
    captions = pyarrow.array([b"a dog", b"caf\xe9"]).view(pyarrow.string())
    first, second = read(arrow(caption=captions), "a.parquet")
    assert isinstance(first, ClipRequest)
    assert (second.reason, second.source_row) == ("row_not_utf8", "a.parquet:2")


def test_a_duplicate_column_is_refused():
    data = io.BytesIO()
    names = ["video", "end", "caption", "caption", "note", "note"]
    arrays = [pyarrow.array([value]) for value in ("a", 1.0, "b", "c", "d", "e")]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names), data)
    for name, whole in (
        ("a.parquet", data.getvalue()),
        ("a.csv", b"video,end,caption,caption,note,note\na,1,b,c,d,e\n"),
        ("a.jsonl", b'{"video": "a", "end": 1, "caption": "b", "caption": "c"}'),
    ):
        (row,) = read(whole, name)
        assert row.reason == "row_columns" and "'caption'" in row.message, row
        if not name.endswith("jsonl"):  # Other columns may have any name.
            (row,) = read(whole.replace(b"caption,caption", b"caption,c"), name, columns={})[:1]


@pytest.mark.parametrize("name", ["rows", "rows.txt", "pipe1"])
def test_the_first_bytes_determine_the_format(name):
    for data in (
        *(delimited(ROWS, ","), delimited(ROWS, "\t"), parquet_file(ROWS)),
        b"\xef\xbb\xbf" + "\n".join(map(json.dumps, ROWS)).encode(),
    ):
        assert [row.caption for row in read(data, name)] == ["a man, singing", "a dog"]


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("0:10", 10_000_000),
        ("1:02:03.5", 3_723_500_000),
        ("00:00:05,250", 5_250_000),
        ("90:00", 5_400_000_000),
        ("100:00:00.000001", 360_000_000_001),
    ],
)
@pytest.mark.parametrize("unit", ["s", "ms"])
def test_clock_times(text, us, unit):
    line = json.dumps({**ROWS[0], "start": 0, "end": text}).encode()
    (row,) = read(line, "rows.jsonl", time_unit=unit)
    assert row.end_us == us


@pytest.mark.parametrize(
    "video", ["bikes.mp4", "my film 1", "54322086@N00_24085.avi", "Fünf", "(HQ) #1", "a\u200db"]
)
def test_any_ids_are_accepted(video):
    (row,) = read(json.dumps({**ROWS[0], "video": f" {video} "}).encode(), "rows.jsonl")
    assert row.video_id == video


@pytest.mark.parametrize(
    "video", ["", ".", "..", ".a", "a/b", "a\\b", "a\0", "a\nb", "a\u2028b", "a\u202eb", "\ud83d"]
)
def test_ids_that_leave_the_folder_are_rejected(video):
    (row,) = read(json.dumps({**ROWS[0], "video": video}).encode(), "rows.jsonl")
    assert row.reason == "video_id_invalid"


def test_a_quoted_field_may_span_lines():
    data = b"""video,end,caption
a,1,"a man
sings, and

dances"
b,1,"a stray quote
c,1,a dog
d,1,a cat"
e,1,"never closed
f,1,"a man\rsings"
g,1,a man\rsings
h,1,last
"""
    rows = read(data, "a.csv")
    assert [(row.source_row, getattr(row, "reason", None) or row.caption) for row in rows] == [
        ("a.csv:2", "a man\nsings, and\n\ndances"),
        ("a.csv:6", "row_quote"),
        ("a.csv:7", "a dog"),
        ("a.csv:8", 'a cat"'),
        ("a.csv:9", "row_quote"),
        ("a.csv:10", "a man\rsings"),
        ("a.csv:11", "row_carriage_return"),
        ("a.csv:12", "last"),
    ]


@pytest.mark.timeout(60)
def test_a_header_of_a_million_columns_is_fast():
    (row,) = read(b"video,end,caption" + b"," * 1_000_000 + b"\na,1,x\n", "a.csv")
    assert row.reason == "row_columns"


def test_lines_may_end_with_carriage_returns(monkeypatch):
    monkeypatch.setattr(lines, "LINE_BYTES", 100)  # much smaller than the file
    data = b"video,end,caption\r" + b"".join(b"v%d,1,a dog\r" % i for i in range(1000))
    rows = read(data + b"x,1," + b"a" * 99 + b"\ry,1,a cat", "a.csv")
    assert [row.source_row for row in rows] == [f"a.csv:{i}" for i in range(2, 1004)]
    assert {type(row) for row in rows[:1000]} == {ClipRequest}
    assert (rows[1000].reason, rows[1001].caption) == ("row_too_long", "a cat")


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet"]))
def test_any_bytes_are_rows_or_rejects(data, name):
    with contextlib.suppress(AnnotationError):
        for row in read(data, name):
            assert isinstance(row, ClipRequest | Reject)


RENAMED = {"start": "start_time", "labels": "Label"}


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_columns_that_seem_meant_but_are_not_read_are_named(form):
    def cautions(names, **columns):
        rows = [{names.get(key, key): value for key, value in row.items()} for row in ROWS]
        data = {
            "csv": lambda: "\n".join([",".join(rows[0]), 'a,0.5,2,"a man",x']).encode(),
            "tsv": lambda: "\n".join(["\t".join(rows[0]), "a\t0.5\t2\ta man\tx"]).encode(),
            "jsonl": lambda: "\n".join(map(json.dumps, rows)).encode(),
            "parquet": lambda: parquet_file(rows),
        }[form]()
        options = SourceOptions(columns=columns)
        return generic.cautions(io.BytesIO(data), f"rows.{form}", options)

    start, labels = cautions(RENAMED)
    assert "--columns start=start_time" in start and "starts at 0" in start
    assert "--columns labels=Label" in labels
    assert cautions(RENAMED, **RENAMED) == []
    assert cautions({}) == []
    assert cautions({"start": "id"}) == []  # No other column looks like a start.


def test_a_damaged_file_has_no_caution():
    for data in (b"", b"PAR1\x15nothing", b"{", b'"', b"video,end\n"):
        assert generic.cautions(io.BytesIO(data), "rows", SourceOptions()) == []
