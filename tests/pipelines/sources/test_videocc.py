import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import videocc
from pipelines.sources.clip_request import ClipRequest, RowError
from pipelines.sources.reject_reasons import REASONS
from protos.v1.manifest_pb2 import Reject, SourceOptions

ID = "dQw4w9WgXcQ"


def read(data: bytes) -> list[Any]:
    return list(videocc.read(io.BytesIO(data), "rows.csv", SourceOptions()))


def parse(line: bytes):
    return videocc.parse(line, "a:1", SourceOptions())


@pytest.mark.parametrize(
    "video",
    [
        ID,
        f"https://www.youtube.com/watch?v={ID}",
        f"http://youtube.com/watch?feature=share&v={ID}&t=3s",
        f"https://youtu.be/{ID}?t=3",
        f"https://www.youtube.com/embed/{ID}",
        f"youtube.com/shorts/{ID}",
    ],
)
def test_video_by_id_or_url(video):
    assert parse(f"{video},0,1,a man".encode()).video_id == ID


def test_an_id_may_begin_with_a_dash():  # as does one YouTube id in 64
    assert parse(b"-tCQ4tCQdWE,0,1,a man").video_id == "-tCQ4tCQdWE"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"{ID},0,1", "row_columns"),
        ("", "row_columns"),
        (f'{ID},0,1,"a man', "row_quote"),
        ("../../etc/p,0,1,a", "video_id_invalid"),
        ("..,0,1,a", "video_id_invalid"),
        ("a/b/c/d/e/f,0,1,a", "video_id_invalid"),
        ("-rf,0,1,a", "video_id_invalid"),
        (f"file:///{ID},0,1,a", "video_id_invalid"),
        (f"https://example.org/watch?v={ID},0,1,a", "video_id_invalid"),
        ("dQw4w9WgXc\u0661,0,1,a", "video_id_invalid"),
        (f"{ID},nan,1,a", "time_invalid"),
        (f"{ID},0,inf,a", "time_invalid"),
        (f"{ID},0,1e400,a", "time_invalid"),
        (f"{ID},0,1e300,a", "time_invalid"),
        (f"{ID},zero,1,a", "time_invalid"),
        (f"{ID},,1,a", "time_invalid"),
        (f"{ID},1_0,20,a", "time_invalid"),
        (f"{ID},0,{'9' * 400},a", "time_invalid"),
        (f"{ID},-1,1,a", "time_negative"),
        (f"{ID},5,5,a", "span_empty"),
        (f"{ID},6,5,a", "span_empty"),
        (f"{ID},0,1,  ", "caption_empty"),
        (f"{ID},0,1,", "caption_empty"),
        (f"{ID},0,1,a\0b", "caption_invalid"),
        (f"{ID},0,1,{'a' * 4_200_000}", "row_too_long"),
    ],
)
def test_bad_rows_have_reasons(row, reason):
    with pytest.raises(RowError) as error:
        parse(row.encode())
    assert error.value.reason == reason
    assert error.value.reason in REASONS


@pytest.mark.parametrize(
    ("caption", "read_as"),
    [
        ("a man, smiling, waves", "a man, smiling, waves"),
        ('"a man, smiling"', "a man, smiling"),
        ('"he says ""no"""', 'he says "no"'),
        ('a 5" pipe', 'a 5" pipe'),
        ('"no" he says, and goes', '"no" he says, and goes'),
        ("  a man ", "a man"),
        ("رجل 🎈", "رجل 🎈"),
    ],
)
def test_captions_with_any_quotes(caption, read_as):
    assert parse(f"{ID},0,1,{caption}\r\n".encode()).caption == read_as


def test_a_caption_of_a_megabyte_is_cut():
    clip = parse(f"{ID},0,1,{'word ' * 200_000}".encode())
    assert clip.caption == ("word " * 2_000).strip()
    assert clip.caption_cut_from == len("word " * 200_000) - 1


def test_times_may_be_floats():
    clip = parse(f"{ID},1500000.0,2.5e6,a".encode())
    assert (clip.start_us, clip.end_us) == (1_500_000, 2_500_000)


@pytest.mark.parametrize("header", [b"", b"video_url,start,end,caption\n", b"URL,begin,end,text\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_header_and_byte_order_mark(header, mark):
    rows = read(mark + header + f"{ID},0,1,a\n".encode())
    assert [type(row) for row in rows] == [ClipRequest]


def test_a_first_row_with_bad_times_is_no_header():
    (row,) = read(f"{ID},nan,inf,a\n".encode())
    assert isinstance(row, Reject) and row.reason == "time_invalid"


def test_a_bad_row_rejects_no_other():
    good = f"{ID},0,1,a\n".encode()
    bad = [b"\xff\xfe,0,1,a\n", f'{ID},0,1,"open\n'.encode(), b"x" * 9_000_000 + b"\n", b"\0\n"]
    rows = read(good + b"".join(line + good for line in bad) + b"\n  \n")
    kinds = [row.reason if isinstance(row, Reject) else "" for row in rows]
    assert kinds == ["", "row_not_utf8", "", "row_quote", "", "row_too_long", "", "row_columns", ""]
    assert [row.source_row for row in rows] == [f"rows.csv:{i}" for i in range(1, 10)]
    assert all(len(row.row) <= 500 for row in rows if isinstance(row, Reject))


line_free = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1
)


@given(
    caption=line_free.filter(str.strip), start=st.integers(0, 10**12), length=st.integers(1, 10**9)
)
def test_rows_of_a_csv_writer_are_read(caption, start, length):
    line = io.StringIO()
    csv.writer(line).writerow([ID, start, start + length, caption])
    clip = parse(line.getvalue().encode())
    assert clip.caption == caption.strip()
    assert (clip.start_us, clip.end_us) == (start, start + length)


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_rejects(data):
    for row in read(data):
        assert isinstance(row, ClipRequest | Reject)
