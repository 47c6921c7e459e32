"""Invented examples in the format of WebVid (Bain et al., 2021)."""

import io
from typing import Any

import pytest

from pipelines.sources import webvid
from protos.v1.manifest_pb2 import SourceOptions

HEADER = "videoid,contentUrl,duration,page_dir,name\n"


def read(text) -> list[Any]:
    return list(webvid.read(io.BytesIO(text.encode()), "rows.csv", SourceOptions()))


def test_rows_are_whole_videos():
    (row,) = read(HEADER + '1039,https://example.org/a.mp4,PT00H01M26S,0001_0050,"Sea, at dusk"\n')
    assert (row.video_id, row.start_us, row.end_us) == ("1039", 0, 86_000_000)
    assert (row.caption, row.source_row) == ("Sea, at dusk", "rows.csv:2")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1039,u,26,d,Sea", "time_invalid"),
        ("1039,u,PT,d,Sea", "time_invalid"),
        ("1039,u,PT00H00M00S,d,Sea", "span_empty"),
        ("../1039,u,PT9S,d,Sea", "video_id_invalid"),
        (".hidden,u,PT9S,d,Sea", "video_id_invalid"),
        ("1039,u,PT9S,d,", "caption_empty"),
        ("1039,u,PT9S,Sea", "row_columns"),
        ("1039,u,PT9S,d,Sea,calm", "row_columns"),
    ],
)
def test_bad_rows_have_reasons(row, reason):
    assert [each.reason for each in read(f"{HEADER}{row}\n")] == [reason]
