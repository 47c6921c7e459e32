"""The examples are made up, in the form of MSVD's AllVideoDescriptions.txt (Chen & Dolan, 2011)."""

from typing import Any

from pipelines.clip_request import TO_THE_END, ClipRequest
from pipelines.sources import msvd
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
        "said.txt:2",
    )


def test_a_list_picks_the_split_and_what_it_names_in_vain_is_told():
    rows = read(said=SAID, train_list=b"b4-FoJzN5vk_0_9\r\nnobody_0_1\r\n")
    assert [getattr(row, "reason", row.video_id) for row in rows] == [
        "other_split",
        "b4-FoJzN5vk_0_9",
        "not_annotated",
    ]
    assert rows[2].source_row == "train_list.txt:2"


def test_sentences_that_are_none_are_rows_of_their_own():
    rows = read(said=SAID + b"b4-FoJzN5vk_0_9  \nb4-FoJzN5vk_0_9 a\0b\n")
    assert [getattr(row, "reason", None) for row in rows] == [
        None,
        None,
        "caption_empty",
        "caption_invalid",
    ]


def test_files_without_sentences_are_refused():
    assert {row.reason for row in read(train_list=b"a_0_1\nb_0_1\n")} == {"row_columns"}
    assert [row.reason for row in read(said=b"a_0_1 na\xefve\n")] == ["row_not_utf8"]
