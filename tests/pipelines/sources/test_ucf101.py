"""Examples in the format of UCF101's lists (Soomro et al., 2012): CR LF, numbers from 1."""

from typing import Any

from pipelines.decoding.spans import TO_THE_END
from pipelines.sources import ucf101
from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import SourceOptions

CLASSES = b"1 ApplyEyeMakeup\r\n37 HandstandPushups\r\n"
TRAIN = (
    b"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    b"HandstandPushups/v_HandStandPushups_g08_c04.avi 37\r\n"
)


def read(**files) -> list[Any]:
    named = {f"{name}.txt": data for name, data in files.items()}
    return list(ucf101.read_all(named, SourceOptions()))


def test_a_clip_is_a_whole_file_with_its_folders_class():
    for rows in (read(trainlist01=TRAIN), read(trainlist01=TRAIN, classInd=CLASSES)):
        first, second = rows
        assert isinstance(first, ClipRequest) and isinstance(second, ClipRequest)
        assert (first.video_id, first.labels) == ("v_ApplyEyeMakeup_g08_c01", ("ApplyEyeMakeup",))
        assert (first.start_us, first.end_us, first.caption) == (0, TO_THE_END, "")
        # In the data set, the names of this folder and file differ in a letter.
        assert (second.video_id, second.labels) == (
            "v_HandStandPushups_g08_c04",
            ("HandstandPushups",),
        )
        assert second.source_row == "trainlist01.txt:2"


def test_test_lists_have_no_numbers():
    (row,) = read(testlist01=b"ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\r\n", classInd=CLASSES)
    assert isinstance(row, ClipRequest) and row.labels == ("ApplyEyeMakeup",)


def test_invalid_lines_are_rejected_with_reasons():
    lines = (
        b"ApplyEyeMakeup/v_a.avi 37\r\n"
        b"Jumping/v_b.avi\r\n"
        b"v_c.avi 1\r\n"
        b"ApplyEyeMakeup/.hidden 1\r\n"
        b"../v_d/e.avi 1\r\n"
        b"ApplyEyeMakeup/v_\xff.avi 1\r\n"
    )
    assert [row.reason for row in read(trainlist01=lines, classInd=CLASSES)] == [
        "labels_invalid",
        "labels_invalid",
        "row_columns",
        "video_id_invalid",
        "row_columns",
        "row_not_utf8",
    ]
