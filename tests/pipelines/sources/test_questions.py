"""Invented examples in the formats of MSRVTT-QA and MSVD-QA (Xu et al., 2017) and ALPRO."""

import io
import json
from typing import Any

import pytest

from pipelines.decoding.spans import TO_THE_END
from pipelines.sources import msrvtt_qa, msvd_qa
from pipelines.sources.clip_request import AnnotationError, ClipRequest, Question
from protos.v1.manifest_pb2 import SourceOptions

ASKED = [
    {"answer": "nut", "category_id": 3, "id": 8, "question": "what is eaten?", "video_id": 1},
    {"answer": "man", "category_id": 3, "id": 9, "question": "Who runs? ", "video_id": 7010},
    {"answer": "two", "category_id": 3, "id": 10, "question": "how many eat?", "video_id": 1},
]


def read(data) -> list[Any]:
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return list(msrvtt_qa.read(io.BytesIO(data), "test_qa.json", SourceOptions()))


def read_msvd(**files) -> list[Any]:
    return list(msvd_qa.read_all(files, SourceOptions()))


def test_a_clip_is_a_whole_file_with_all_its_questions():
    first, second = read(ASKED)
    assert isinstance(first, ClipRequest) and isinstance(second, ClipRequest)
    assert (first.video_id, first.start_us, first.end_us) == ("video1", 0, TO_THE_END)
    assert first.caption == ""
    assert first.questions == (
        Question("8", "what is eaten?", "nut", "what"),
        Question("10", "how many eat?", "two", "how"),
    )
    assert second.video_id == "video7010"
    assert second.questions == (Question("9", "Who runs?", "man", "who"),)


def test_json_lines_have_ids_by_line():
    line = b'{"answer": "couch", "question": "what?", "video_id": "video%d", "answer_type": "what"}'
    rows = read(b"\xef\xbb\xbf" + b"\r\n\r\n".join(line % video for video in (6, 7, 6)))
    assert [(row.video_id, row.questions) for row in rows] == [
        (
            "video6",
            (Question("0", "what?", "couch", "what"), Question("2", "what?", "couch", "what")),
        ),
        ("video7", (Question("1", "what?", "couch", "what"),)),
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(question=""), "question_invalid"),
        (dict(question=None), "question_invalid"),
        (dict(answer=2), "question_invalid"),
        (dict(question="a" * 1001), "question_invalid"),
        (dict(answer="\ud83d"), "question_invalid"),
        (dict(id="\ud83d"), "question_invalid"),
        (dict(id=[1]), "question_invalid"),
        (dict(video_id="../1"), "video_id_invalid"),
        (dict(video_id=None), "video_id_invalid"),
        (dict(video_id=True), "video_id_invalid"),
    ],
)
def test_invalid_questions_are_separate_rows(changes, reason):
    rows = read([ASKED[0], {**ASKED[1], **changes}])
    assert [getattr(row, "reason", row.video_id) for row in rows] == ["video1", reason]
    assert rows[1].source_row == "test_qa.json:2"


def test_questions_without_a_video_are_rejects():
    rows = read([{**ASKED[0], "video_id": video} for video in ("", "", None)])
    assert [(row.source_row, row.reason) for row in rows] == [
        (f"test_qa.json:{number}", "video_id_invalid") for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("data", [b"[1]", {"questions": []}, b'{"a": 1}\n7\n'])
def test_entries_without_a_question_are_rejects(data):
    assert {row.reason for row in read(data)} == {"row_columns"}


@pytest.mark.parametrize("data", [b"[", b"7\n", b"", b"[{}] {}", b'{"a": 1}, {"a": 1}]'])
def test_other_files_are_refused(data):
    with pytest.raises(AnnotationError, match=r"^test_qa\.json"):
        read(data)


def test_msvd_maps_numbers_to_videos():
    mapping = b"-4wsuPCjDBc_5_15 vid1\r\nb4-FoJzN5vk_0_9 vid7010\r\n"
    data = json.dumps(ASKED).encode()
    rows = read_msvd(**{"test_qa.json": data, "youtube_mapping.txt": mapping})
    assert [row.video_id for row in rows] == ["-4wsuPCjDBc_5_15", "b4-FoJzN5vk_0_9"]
    assert [len(row.questions) for row in rows] == [2, 1]


def test_msvd_without_its_mapping_rejects_each_question():
    rows = read_msvd(**{"test_qa.json": json.dumps(ASKED).encode()})
    assert [row.reason for row in rows] == ["video_id_invalid"] * 3
    with pytest.raises(AnnotationError, match=r"mapping\.txt:2: the line is not <name> vid"):
        read_msvd(**{"test_qa.json": b"[]", "youtube_mapping.txt": b"a vid1\na b c\n"})
    with pytest.raises(AnnotationError, match=r"mapping\.txt:3: .*vid1 is 'b' here and 'a' before"):
        read_msvd(**{"test_qa.json": b"[]", "youtube_mapping.txt": b"a vid1\na vid1\nb vid1\n"})
    with pytest.raises(AnnotationError, match="no file is JSON: youtube_mapping"):
        read_msvd(**{"youtube_mapping.txt": b"a vid1\n"})
