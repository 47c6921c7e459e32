import tracemalloc

import pytest

from trainer.evaluation import box_files
from trainer.evaluation.box_files import JUDGED
from trainer.evaluation.prediction_files import TaskFileError

BOX = (0.077, 0.151, 0.283, 0.811)
ANNOTATIONS = """\
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1
-5KQ66BBWC4,0903,0.077,0.151,0.283,0.811,80
-5KQ66BBWC4,0904,,,,,,
-5KQ66BBWC4,0905,0.077,0.151,0.283,0.811,2,1
"""


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "ava_val_v2.2.csv"
    path.write_bytes(ANNOTATIONS.replace("\n", "\r\n").encode())
    return path


def detections(path, *rows):
    of_one = ((("-5KQ66BBWC4", second), *columns) for second, *columns in rows)
    box_files.write_detections(path, box_files.as_columns(of_one))
    return path


def test_detections_survive_a_file(tmp_path):
    path = tmp_path / "found.csv"
    found = [
        (("a", 902), (0.1, 0.2, 1 / 3, 0.4), 12, 1 / 7),
        (("b", 7), (0.1, 0.2, 0.3, 0.4), 80, 1.0),
        (("a", 902), (0.1, 0.2, 1 / 3, 0.4), 1, 0.0),
    ]
    box_files.write_detections(path, box_files.as_columns(found))
    assert path.read_text().splitlines() == [
        "a,0902,0.1,0.2,0.3333333333333333,0.4,12,0.14285714285714285",
        "b,0007,0.1,0.2,0.3,0.4,80,1.0",
        "a,0902,0.1,0.2,0.3333333333333333,0.4,1,0.0",
    ]
    (keyframes, places, *columns), nobody = box_files.read_labelled(path, scored=True)
    assert not nobody
    rows = zip(*(column.tolist() for column in (places, *columns)), strict=True)
    assert [(keyframes[place], tuple(box), *more) for place, box, *more in rows] == found


def test_millions_of_detections_are_held_as_columns(tmp_path):
    """Detections use arrays: AVA's validation set has 5 million, 4.7 GB as tuples."""
    path, rows = tmp_path / "found.csv", 5_000
    path.write_text(
        "".join(f"a,{902 + row // 60},0.1,0.2,0.3,0.4,{1 + row % 60},0.5\n" for row in range(rows))
    )
    tracemalloc.start()
    found, _ = box_files.read_labelled(path, scored=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.score) == rows
    assert peak < 150 * rows


def test_the_styles_differ_by_keyframes_without_truth_and_exclusions(truth, tmp_path):
    excluded = tmp_path / "ava_val_excluded_timestamps_v2.2.csv"
    excluded.write_text("-5KQ66BBWC4,0903\n")
    path = detections(
        tmp_path / "found.csv",
        (902, BOX, 80, 0.5),
        (902, BOX, 9, 0.5),
        (902, BOX, 2, 1.0),  # no judged class
        (906, BOX, 80, 0.9),  # not annotated
    )
    found = box_files.score([path], [truth, excluded])
    assert (found["images"], found["boxes"], found["classes"]) == (2, 3, 60)
    assert (found["detections"], found["unlabelled"]) == (3, 1)
    assert "1 detections are on keyframes without annotations" in box_files.table(found)
    assert found["official"] == pytest.approx(100 * (0.5 + 1) / 2)  # 0903 is not found
    assert found["slowfast"] == pytest.approx(100 * (0.5 + 1) / 2)  # 0906 stands before 0902
    assert box_files.score([path], [truth])["slowfast"] == pytest.approx(100 * (0.25 + 1) / 2)
    assert "official" in box_files.table(found)


@pytest.mark.parametrize("second", [904, 905])  # of nobody, and of a class that is not judged
def test_detections_on_annotated_keyframes_without_a_judged_box_are_wrong(truth, tmp_path, second):
    path = detections(tmp_path / "found.csv", (902, BOX, 80, 0.5), (second, BOX, 80, 0.9))
    found = box_files.score([path], [truth])
    assert found["official"] == found["slowfast"] == pytest.approx(100 * (0.5 * 0.5 + 0) / 2)
    assert found["unlabelled"] == 0


def test_detections_may_say_that_a_keyframe_shows_nobody(truth, tmp_path):
    path = tmp_path / "found.csv"
    path.write_text("-5KQ66BBWC4,0904\n-5KQ66BBWC4,0905,,,,,,\n")
    assert box_files.score([path], [truth])["detections"] == 0


def test_only_fifty_labels_a_keyframe_count_officially(truth, tmp_path):
    many = [(902, (0.0, 0.0, 0.01, 0.01), 1, 0.9)] * 50
    path = detections(tmp_path / "found.csv", *many, (902, BOX, 80, 0.5), (902, BOX, 9, 0.5))
    found = box_files.score([path], [truth])
    assert found["official"] == 0
    assert found["slowfast"] == pytest.approx(100 * (0.5 + 1) / 2)


def test_the_judged_classes_are_read_from_a_list(truth, tmp_path):
    path = tmp_path / "ava_action_list.pbtxt"
    path.write_text(
        'item {\n  name: "watch"\n  id: 80\n}\nlabel {\n  name: "x"\n  label_id: 2\n}\n'
    )
    assert box_files.read_classes(path) == (80, 2)
    found = box_files.score([detections(tmp_path / "found.csv", (905, BOX, 2, 0.5))], [truth, path])
    assert (found["classes"], found["official"]) == (2, 50)
    assert len(set(JUDGED)) == 60


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,0902,0,0,1,1,80", r"found\.csv:1: 7 columns, expected 8 columns"),
        ("a,0902,0,0,1,1,81,0.5", "'81' must be an action in 1 … 80"),
        ("a,0902,0,0,1,x,80,0.5", "'x' is not a finite number"),
        ("a,0902,0,0,1,1,80,nan", "'nan' is not a finite number"),
        ("a,9.5,0,0,1,1,80,0.5", "'9.5' must be a second such as 0902"),
        ("a,0902,12,30,200,340,80,0.5", "12,30,200,340 is far outside .* not pixels"),
        ("a,0902,0.1,0.1,0.5,2.5,80,0.5", "far outside"),
        ("a,0902,0,0,1,1,80,1_0", "'1_0' is not a finite number"),
        ("a,0902,0,0,1,1,80,1e400", "'1e400' is not a finite number"),
        ("", r"found\.csv has no detection"),
        ('a,"0902,0,0,1,1,80,0.5', r"found\.csv:1: not CSV"),
    ],
)
def test_invalid_predictions_are_refused(truth, tmp_path, row, message):
    path = tmp_path / "found.csv"
    path.write_text(f"{row}\n")
    with pytest.raises(TaskFileError, match=message):
        box_files.score([path], [truth])


def test_invalid_ground_truth_is_refused(truth, tmp_path):
    path = detections(tmp_path / "found.csv", (902, BOX, 80, 0.5))
    with pytest.raises(TaskFileError, match="one file of annotations, got 2"):
        box_files.score([path], [truth, path])
    backwards = tmp_path / "backwards.csv"
    backwards.write_text("a,0902,0.5,0,0.1,1,80,1\n")
    with pytest.raises(TaskFileError, match=r"ends before it starts: 0\.5,0,0\.1,1"):
        box_files.score([path], [backwards])
    pixels = tmp_path / "pixels.csv"
    pixels.write_text("a,0902,10,20,100,200,80,1\n")
    with pytest.raises(TaskFileError, match=r"far outside the frame.* not pixels"):
        box_files.score([path], [pixels])
    unjudged = tmp_path / "unjudged.csv"
    unjudged.write_text("a,0902,0,0,1,1,2,1\n")
    with pytest.raises(TaskFileError, match="no annotated box is of the 60 evaluated classes"):
        box_files.score([path], [unjudged])


def test_files_of_exclusions_are_united_in_any_order(truth, tmp_path):
    excluded = [tmp_path / "excluded_a.csv", tmp_path / "excluded_b.csv"]
    excluded[0].write_text("-5KQ66BBWC4,0902\n")
    excluded[1].write_text("x,0903\n")
    path = detections(tmp_path / "found.csv", (902, BOX, 80, 0.5), (903, BOX, 80, 0.4))
    united = tmp_path / "excluded.csv"
    united.write_text("".join(one.read_text() for one in excluded))
    expected = box_files.score([path], [truth, united])
    assert box_files.score([path], [truth, *excluded]) == expected
    assert box_files.score([path], [truth, *reversed(excluded)]) == expected
    assert expected != box_files.score([path], [truth])


def test_a_second_file_of_another_kind_is_refused_by_name(truth, tmp_path):
    path = detections(tmp_path / "found.csv", (902, BOX, 80, 0.5))
    for name in ("a.pbtxt", "b.pbtxt"):
        (tmp_path / name).write_text("  id: 80\n")
    lists = [tmp_path / "a.pbtxt", tmp_path / "b.pbtxt"]
    with pytest.raises(TaskFileError, match=r"2 files of classes, the second is .*b\.pbtxt"):
        box_files.score([path], [truth, *lists])
    with pytest.raises(TaskFileError, match="2 files of detections, the second is"):
        box_files.score([path, path], [truth])
    with pytest.raises(TaskFileError, match="got 2"):
        box_files.score([path], [truth, truth])


def test_reversed_boxes_are_counted_in_the_table(truth, tmp_path):
    x1, y1, x2, y2 = BOX
    path = detections(tmp_path / "found.csv", (902, (x2, y1, x1, y2), 80, 0.5))
    found = box_files.score([path], [truth])
    assert (found["official"], found["without_area"]) == (0.0, 1)
    assert "1 detections have no area, or end before they start" in box_files.table(found)
