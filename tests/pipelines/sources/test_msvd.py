"""Invented examples in the format of MSVD's AllVideoDescriptions.txt (Chen & Dolan, 2011)."""

from typing import Any

import pytest

from pipelines.decoding.spans import TO_THE_END
from pipelines.sources import msvd
from pipelines.sources.clip_request import AnnotationError, ClipRequest
from protos.v1.manifest_pb2 import SourceOptions

SAID = (
    b"# English descriptions\r\n\r\n"
    b"-4wsuPCjDBc_5_15 a squirrel eats a nut.\r\n"
    b"b4-FoJzN5vk_0_9 a woman sings\r\n"
    b"-4wsuPCjDBc_5_15 an animal is eating\r\n"
)


def read(**files) -> list[Any]:
    named = {f"{name}.txt": data for name, data in files.items()}
    return list(msvd.read_all(named, SourceOptions()))


def test_a_clip_is_a_whole_file_with_all_its_sentences():
    first, second = read(said=SAID)
    assert isinstance(first, ClipRequest) and isinstance(second, ClipRequest)
    assert (first.video_id, first.start_us, first.end_us) == ("-4wsuPCjDBc_5_15", 0, TO_THE_END)
    assert first.captions == ("a squirrel eats a nut.", "an animal is eating")
    assert (second.caption, second.captions, second.source_row) == (
        "a woman sings",
        (),
        "said.txt:4",
    )


def test_a_list_selects_the_split_and_rejects_unknown_ids():
    rows = read(said=SAID, train_list=b"b4-FoJzN5vk_0_9\r\nnobody_0_1\r\n")
    assert [getattr(row, "reason", row.video_id) for row in rows] == [
        "other_split",
        "b4-FoJzN5vk_0_9",
        "not_annotated",
    ]
    assert rows[2].source_row == "train_list.txt:2"


def test_invalid_sentences_are_separate_rows():
    rows = read(said=SAID + b"b4-FoJzN5vk_0_9  \nb4-FoJzN5vk_0_9 a\0b\n")
    assert [(row.source_row, getattr(row, "reason", None)) for row in rows] == [
        ("said.txt:3", None),
        ("said.txt:4", None),
        ("said.txt:6", "caption_empty"),
        ("said.txt:7", "caption_invalid"),
    ]


def test_an_invalid_line_rejects_no_other():
    rows = read(said=SAID + b"a_0_1 na\xefve\na_0_1 a\rb_0_1 b\nc_0_1 \n")
    assert [(row.source_row, getattr(row, "reason", None)) for row in rows[2:]] == [
        ("said.txt:6", "row_not_utf8"),
        ("said.txt:7", "row_carriage_return"),
        ("said.txt:8", "caption_empty"),
    ]


def test_a_line_without_a_video_is_a_reject():
    rows = read(said=SAID + b" a dog\n a cat\n", train_list=b"b4-FoJzN5vk_0_9\n")
    assert [(row.source_row, row.reason) for row in rows[2:]] == [
        ("said.txt:6", "row_columns"),
        ("said.txt:7", "row_columns"),
    ]


def test_a_damaged_list_is_refused():
    with pytest.raises(AnnotationError, match=r"train_list\.txt:2: byte 1 of the line is no UTF-8"):
        read(said=SAID, train_list=b"b4-FoJzN5vk_0_9\nb\xff\n")


def test_files_without_sentences_are_refused():
    assert {row.reason for row in read(train_list=b"a_0_1\nb_0_1\n")} == {"row_columns"}
    assert [row.reason for row in read(said=b"a_0_1 na\xefve\n")] == ["row_not_utf8"]


@pytest.mark.parametrize(("first", "cut_from"), [("a man", 0), ("a" * 10_001, 10_001)])
def test_a_cut_first_sentence_states_its_length(first, cut_from):
    long = "b" * 20_000
    (row,) = read(said=f"a_0_1 {first}\na_0_1 {long}\n".encode())
    assert (row.caption, row.caption_cut_from) == (first[:10_000], cut_from)
    assert row.captions == (first[:10_000], long[:10_000])
