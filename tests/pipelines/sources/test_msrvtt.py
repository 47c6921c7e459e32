"""Invented examples in the formats of MSR-VTT (Xu et al., 2016) and its readers."""

import json
from typing import Any

import pytest

from pipelines.decoding.spans import TO_THE_END
from pipelines.sources import msrvtt
from pipelines.sources.clip_request import AnnotationError, ClipRequest
from protos.v1.manifest_pb2 import SourceOptions

ALL = {
    "videos": [
        {"video_id": "video0", "id": 0, "url": "u", "split": "train", "start time": 7.0},
        {"video_id": "video1", "id": 1, "url": "u", "split": "test"},
        {"video_id": "video2", "id": 2, "url": "u", "split": "test"},
    ],
    "sentences": [
        {"video_id": "video1", "sen_id": 4, "caption": "a man cooks"},
        {"video_id": "video0", "sen_id": 1, "caption": "a car is shown"},
        {"video_id": "video1", "sen_id": 3, "caption": " a man cooks "},
        {"video_id": "video1", "sen_id": 9, "caption": "somebody cooks"},
        {"video_id": "video2", "sen_id": 5, "caption": "a dog"},
    ],
}
ONE_LIST = (
    b"key,vid_key,video_id,sentence\r\nret0,msr1,video1,a man cooks\r\nret1,msr2,video2,x\r\n"
)


def read(*values, **options) -> list[Any]:
    files = {}
    for number, value in enumerate(values):
        is_text = isinstance(value, bytes)
        name = f"{number}.{'csv' if is_text else 'json'}"
        files[name] = value if is_text else json.dumps(value).encode()
    return list(msrvtt.read_all(files, SourceOptions(**options)))


def told(rows):
    return [
        (row.video_id, row.caption if isinstance(row, ClipRequest) else row.reason, row.source_row)
        for row in rows
    ]


def test_a_clip_is_a_whole_file_with_all_its_sentences():
    first, second, third = read(ALL)
    assert (first.start_us, first.end_us, first.captions) == (0, TO_THE_END, ())
    assert second.caption == "a man cooks"
    assert second.captions == ("a man cooks", "a man cooks", "somebody cooks")
    assert [row.source_row for row in (first, second, third)] == [
        "0.json:1",
        "0.json:2",
        "0.json:3",
    ]


@pytest.mark.parametrize(
    "listing",
    [b"video_id\nvideo0\nvideo2\n", b"video0\r\nvideo2\r\n", b"\xef\xbb\xbfvideo0\nvideo2"],
)
def test_a_list_selects_the_split(listing):
    assert told(read(ALL, listing)) == [
        ("video0", "a car is shown", "0.json:1"),
        ("video1", "other_split", "0.json:2"),
        ("video2", "a dog", "0.json:3"),
    ]


def test_the_files_split_selects_videos():
    assert [row.video_id for row in read(ALL, subset="test") if isinstance(row, ClipRequest)] == [
        "video1",
        "video2",
    ]


def test_frozen_in_times_file():
    annotations = [
        {"image_id": sentence["video_id"], "caption": sentence["caption"]}
        for sentence in ALL["sentences"]
    ]
    rows = read({"annotations": annotations}, b"video1\n")
    assert told(rows) == [
        ("video1", "a man cooks", "0.json:1"),
        ("video0", "other_split", "0.json:2"),
        ("video2", "other_split", "0.json:3"),
    ]


def test_the_test_list_has_one_sentence_per_video():
    rows = read(ONE_LIST)
    assert told(rows) == [("video1", "a man cooks", "0.csv:2"), ("video2", "x", "0.csv:3")]
    assert all(row.captions == () and row.end_us == TO_THE_END for row in rows)


def test_no_row_and_no_sentence_is_lost():
    bad = json.loads(json.dumps(ALL))
    bad["sentences"][0]["caption"] = " "
    bad["sentences"][1]["caption"] = 7
    bad["videos"].append({"video_id": "../etc"})
    bad["sentences"].append({"video_id": "../etc", "caption": "a"})
    assert told(read(bad, b"video0\nvideo1\nvideo9\n../etc\n")) == [
        ("video0", "caption_empty", "0.json:1"),
        ("video0", "caption_invalid", "0.json:2"),
        ("video1", "a man cooks", "0.json:3"),
        ("video1", "caption_empty", "0.json:4"),
        ("video2", "other_split", "0.json:5"),
        ("../etc", "video_id_invalid", "0.json:6"),
        ("video9", "not_annotated", "1.csv:3"),
    ]


def test_unmatched_lines_of_a_list_are_rejects():
    listing = b"key,video_id\nret0,\nret1,video0\nret2,  \nret3,video9\nret4,\nret5,video9\n"
    assert told(read(ALL, listing))[3:] == [
        ("", "video_id_invalid", "1.csv:2"),
        ("", "video_id_invalid", "1.csv:4"),
        ("video9", "not_annotated", "1.csv:5"),
        ("", "video_id_invalid", "1.csv:6"),
        ("video9", "not_annotated", "1.csv:7"),
    ]


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("subset", ["train", "test"])
def test_a_video_in_two_splits_is_rejected(files, subset):
    videos = [{"video_id": "a", "split": split} for split in ("train", "test", "train")]
    said = [{"video_id": "a", "caption": "x"}]
    parts = [videos] if files == 1 else [videos[:1], videos[1:]]
    rows = read(*({"videos": part, "sentences": said} for part in parts), subset=subset)
    assert [row.reason for row in rows] == ["other_split"] * files
    assert {row.message for row in rows} == {f"of train and of test, not of {subset} alone"}
    assert isinstance(read({"videos": videos, "sentences": said})[0], ClipRequest)


def test_entries_without_a_video_are_rejects():
    videos = [{"video_id": "video0"}, {"video_id": 7}, {}]
    said = [{"video_id": video, "caption": f"a {video}"} for video in (7, None, "video0", "", 7)]
    rows = read({"videos": videos, "sentences": [*said, {"caption": "a"}]}, b"video0\n")
    assert told(rows) == [
        ("video0", "a video0", "0.json:1"),
        *(("", "video_id_invalid", f"0.json:{number}") for number in range(2, 9)),
    ]
    assert [json.loads(row.row) for row in rows[1:]] == [
        *videos[1:],
        *(said[place] for place in (0, 1, 3, 4)),
        {"caption": "a"},
    ]


def test_entries_without_a_video_in_frozen_in_times_file_are_rejects():
    annotations = [{"image_id": image, "caption": "a"} for image in (1, 2, "video0", 2)]
    assert told(read({"annotations": annotations})) == [
        ("video0", "a", "0.json:1"),
        *(("", "video_id_invalid", f"0.json:{number}") for number in (2, 3, 4)),
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"videos": []},
        {"videos": 1, "sentences": 2},
        [1],
        b"{",
        b"[" * 9999,
        b'{"videos": [], "sentences": [], "videos": []}',
    ],
)
def test_other_files_are_refused(value):
    with pytest.raises(AnnotationError, match=r"^0\.json |^0\.csv "):
        read(value)
    with pytest.raises(AnnotationError):
        read(ALL, value)


@pytest.mark.parametrize("listing", [b"video_id,b\nvideo0\n", b"video0\n\xff\n", b'"video0\n'])
def test_a_damaged_list_is_refused(listing):
    with pytest.raises(AnnotationError, match=r"^1\.csv:[12]: "):
        read(ALL, listing)


def test_a_lone_surrogate_is_escaped():
    first, second = read(
        {
            "videos": [{"video_id": "video0"}, {"video_id": "\ud83d"}],
            "sentences": [{"video_id": "video0", "caption": "a \ud83d"}],
        }
    )[1:]
    assert (first.reason, first.row) == ("caption_invalid", r"a \ud83d")
    assert (second.reason, second.video_id) == ("caption_empty", r"\ud83d")


def test_the_original_test_list(real_data):
    path = real_data / "msrvtt" / "msrvtt_test.csv"
    rows = read(path.read_bytes())
    assert len(rows) == 1000
    assert all(isinstance(row, ClipRequest) for row in rows)
    assert len({row.video_id for row in rows}) == 1000
    assert len({row.caption for row in rows}) == 995  # Duplicates are separate queries.
    assert len({row.clip_id for row in rows}) == 1000
    assert rows[0].caption == "a person is connecting something to system"


def test_a_cut_caption_states_its_length():
    long = "a" * 10_001
    for value in (
        b"video_id,sentence\nvideo1," + long.encode(),
        {"annotations": [{"image_id": "video1", "caption": long}]},
    ):
        (row,) = read(value)
        assert (row.caption, row.caption_cut_from) == (long[:10_000], 10_001)
