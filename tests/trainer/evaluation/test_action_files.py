import json

import numpy as np
import pytest

from trainer.evaluation import action_files
from trainer.evaluation.prediction_files import TaskFileError

LABELS = {"v_Run_g01_c01": "Run", "v_Run_g02_c01": "Run", "v_Sit_g01_c01": "Sit"}


@pytest.fixture
def testlist(tmp_path):
    folder = tmp_path / "ucf"
    folder.mkdir()
    for split in (1, 2, 3):
        lines = [f"{label}/{video}.avi" for video, label in list(LABELS.items())[3 - split :]]
        (folder / f"testlist0{split}.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    (folder / "classInd.txt").write_bytes(b"1 Run\r\n2 Sit\r\n")
    (folder / "trainlist01.txt").write_bytes(b"Run/v_Run_g09_c01.avi 1\r\n")
    return folder


def test_ucf_is_read_with_its_line_ends(testlist):
    assert action_files.read_splits(testlist / "testlist03.txt") == [(3, LABELS)]
    assert [(number, len(labels)) for number, labels in action_files.read_splits(testlist)] == [
        (1, 1), (2, 2), (3, 3),
    ]  # fmt: skip


def test_a_training_list_is_no_split(testlist):
    with pytest.raises(TaskFileError, match=r"trainlist01\.txt lists training videos"):
        action_files.read_splits(testlist / "trainlist01.txt")
    for suffix in ("", ".gz", ".bz2", ".zst"):
        assert action_files.split_of(f"testlist02.txt{suffix}") == 2
        with pytest.raises(TaskFileError, match="lists training videos"):
            action_files.split_of(f"trainlist02.txt{suffix}")


def test_both_forms_of_hmdb_are_one(tmp_path):
    folder = tmp_path / "splits"
    folder.mkdir()
    (folder / "brush_hair_test_split1.txt").write_text("a_b.avi 1 \nc_0.avi 2 \nd.avi 0\n")
    (folder / "brush_hair_test_split2.txt").write_text("a_b.avi 2 \nc_0.avi 1 \nd.avi 0\n")
    (folder / "run_test_split1.txt").write_text("e.avi 2\n")
    expected = [(1, {"c_0": "brush_hair", "e": "run"}), (2, {"a_b": "brush_hair"})]
    assert action_files.read_splits(folder) == expected
    table = tmp_path / "hmdb51.csv"
    table.write_text(
        "video_id,label,split1,split2\na_b.avi,brush_hair_test,1,2\n"
        "c_0.avi,brush_hair_test,2,1\nd.avi,brush_hair_test,0,0\ne.avi,run_test,2,0\n"
    )
    assert action_files.read_splits(table) == expected


def test_the_published_splits_have_their_sizes(request):
    path = request.config.rootpath / "../shared/data/hmdb51/hmdb51.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    splits = action_files.read_splits(path)
    assert [(number, len(labels)) for number, labels in splits] == [(1, 1530), (2, 1530), (3, 1530)]
    for _, labels in splits:
        assert {list(labels.values()).count(name) for name in labels.values()} == {30}
        assert len(set(labels.values())) == 51


def test_clips_are_averaged_and_labels_taken_as_they_are(testlist, tmp_path):
    views = {
        "v_Run_g01_c01": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32),
        "v_Run_g02_c01": np.array([[0.4, 0.6]], np.float32),
        "v_Sit_g01_c01": np.array([[0.5, 0.5], [0.4, 0.6]], np.float32),
    }
    action_files.write(tmp_path / "p.csv", ["Run", "Sit"], views)
    found = action_files.score([tmp_path / "p.csv"], [testlist / "testlist03.txt"])
    assert found["top1"] == pytest.approx(200 / 3)
    assert found["mean_class"] == 75
    labels = [
        "video_id,label",
        "Run/v_Run_g01_c01.avi,Run",
        "v_Run_g02_c01,Sit",
        "v_Sit_g01_c01,Sit",
    ]
    (tmp_path / "l.csv").write_text("\n".join(labels))
    assert action_files.score([tmp_path / "l.csv"], [testlist / "testlist03.txt"]) == found
    results = {
        "v_Run_g01_c01": [{"label": "Sit", "score": 0.1}, {"label": "Run", "score": 0.2}],
        "v_Run_g02_c01": [{"label": "Sit", "score": 1}],
        "v_Sit_g01_c01": [{"label": "Sit", "score": 1}],
    }
    (tmp_path / "r.json").write_text(json.dumps({"version": "1", "results": results}))
    assert action_files.score([tmp_path / "r.json"], [testlist / "testlist03.txt"]) == found


def test_splits_are_averaged_and_missing_videos_are_wrong(testlist, tmp_path):
    paths = []
    for split, answers in enumerate(
        ["v_Sit_g01_c01,Sit", "v_Sit_g01_c01,Run", "v_Sit_g01_c01,Sit"]
    ):
        paths.append(tmp_path / f"{split}.csv")
        paths[-1].write_text(f"video_id,label\n{answers}\n")
    found = action_files.score(paths, [testlist])
    assert [one["top1"] for one in found["splits"]] == pytest.approx([100, 0, 100 / 3])
    assert found["top1"] == pytest.approx(np.mean([100, 0, 100 / 3]))
    assert [one["missing"] for one in found["splits"]] == [0, 1, 2]
    assert "mean of 3 splits" in action_files.table(found)
    with pytest.raises(TaskFileError, match="3 files of predictions for 1 splits"):
        action_files.score(paths, [testlist / "testlist01.txt"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label\n", r"p\.csv:1: the header must be video_id,label"),
        ("video_id,Run\n", "no column for class Sit"),
        ("video_id,Run,Sit,Sit\n", "duplicate columns Sit"),
        ("video_id,Run,Sit\nv_Run_g01_c01,0.5\n", r"p\.csv:2: 2 fields, but the header has 3"),
        ("video_id,Run,Sit\nv_Run_g01_c01,0.5,x\n", r"p\.csv:2: 'x' is not a finite number"),
        ("video_id,label\n\nv_Run_g09_c01,Run\n", r"p\.csv:3: 'v_Run_g09_c01' is not a test video"),
        ("video_id,label\nv_Run_g01_c01,Run\nv_Run_g01_c01.avi,Run\n", r"p\.csv:3: .* has a label"),
        ("video_id,label\nv_Run_g01_c01,1\n", r"p\.csv: '1' is not a class .* closest is Sit"),
    ],
)
def test_faults_name_the_row(testlist, tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(TaskFileError, match=message):
        action_files.score([tmp_path / "p.csv"], [testlist / "testlist03.txt"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "must be an object with 'results'"),
        ({"results": {"v_Run_g01_c01": []}}, r"results\['v_Run_g01_c01'\]: must be a list"),
        ({"results": {"v_Run_g01_c01": [{"label": "Run"}]}}, r"\[0\]: must be an object with"),
        ({"results": {"x": [{"label": "Run", "score": 1}]}}, "'x' is not a test video"),
        ({"results": {"x": [{"label": "Run", "score": True}]}}, r"\[0\]: True is not a finite"),
        (
            {
                "results": {
                    name: [{"label": "Run", "score": 1}]
                    for name in ("v_Run_g01_c01", "Run/v_Run_g01_c01.avi")
                }
            },
            "v_Run_g01_c01 has labels already, under another name",
        ),
    ],
)
def test_faults_of_results_are_named(testlist, tmp_path, value, message):
    (tmp_path / "p.json").write_text(json.dumps(value))
    with pytest.raises(TaskFileError, match=message):
        action_files.score([tmp_path / "p.json"], [testlist / "testlist03.txt"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("testlist01.txt", "v_Run_g01_c01.avi\n", r"testlist01\.txt:1: .* must be CLASS/VIDEO"),
        (
            "testlist01.txt",
            "Run/a.avi\nRun/a.avi\n",
            r"testlist01\.txt:2: a is a duplicate",
        ),
        ("testlist01.txt", "", "split 1 has no test video"),
        ("a.csv", "video_id,label\n", r"a\.csv:1: the header must be video_id,label,split1"),
        ("a.csv", "video_id,label,split1\na,b_test,3\n", r"a\.csv:2: '3' must be 0, 1 or 2"),
    ],
)
def test_faults_of_the_truth_name_the_row(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(TaskFileError, match=message):
        action_files.read_splits(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(TaskFileError, match="has no split"):
        action_files.read_splits(tmp_path)


def scored(folder, truth, *answers):
    classes = {"a": "HandstandPushups", "b": "Run", "c": "run"}
    lists = [folder / f"testlist0{number}.txt" for number in truth]
    for one in lists:
        one.write_text("".join(f"{label}/{video}.avi\n" for video, label in classes.items()))
    given = folder / "p.csv"
    given.write_text("video_id,label\n" + "".join(f"{answer}\n" for answer in answers))
    return action_files.score([given], lists)


def test_labels_may_differ_in_case_alone(tmp_path):
    assert scored(tmp_path, [1], "a,HandStandPushups", "b,Run", "c,run")["top1"] == 100.0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("a,HandPushups", "'HandPushups' is not a class .* the closest is HandstandPushups"),
        ("a, Run", "' Run' is not a class .* the closest is Run"),
        ("b,RUN", "'RUN' is not a class .* the closest is Run"),  # or run
    ],
)
def test_unknown_labels_are_refused_beside_known_ones(tmp_path, answer, message):
    with pytest.raises(TaskFileError, match=message):
        scored(tmp_path, [1], answer, "c,run")


def test_a_split_that_is_given_twice_is_refused(tmp_path):
    with pytest.raises(TaskFileError, match="split 1 is given twice"):
        scored(tmp_path, [1, 1], "a,Run")


def test_huge_scores_are_averaged(tmp_path):
    lists = tmp_path / "testlist01.txt"
    lists.write_text("Run/a.avi\nSit/b.avi\n")
    given = tmp_path / "p.csv"
    given.write_text("video_id,Sit,Run\na,1e308,1.5e308\na,1e308,1.5e308\nb,1,0\n")
    assert action_files.score([given], [lists])["top1"] == 100.0
