import json
import math

import pytest

from trainer.evaluation import segment_files
from trainer.evaluation.prediction_files import TaskFileError
from trainer.evaluation.segment_files import Action, Found
from trainer.tasks.localisation.class_scores import read_class_scores


def dump(path, data):
    path.write_text(json.dumps(data))
    return path


def annotated(*actions):
    return [{"label": label, "segment": [start, end]} for label, start, end in actions]


@pytest.fixture
def official(tmp_path):
    """Two videos to validate on, and one each to train and to test on."""
    run, sit = ("run", 1.0, 5.0), ("sit", 2.0, 8.0)
    database = {
        "a": {"subset": "validation", "duration": 9.5, "annotations": annotated(run, sit)},
        "b": {"subset": "validation", "duration": 8.0, "annotations": annotated(sit)},
        "c": {"subset": "training", "duration": 8.0, "annotations": annotated(("jump", 0, 1))},
        "d": {"subset": "testing", "duration": 7.0},
    }
    return dump(
        tmp_path / "activity_net.json", {"version": "1.3", "taxonomy": [], "database": database}
    )


@pytest.fixture
def published(tmp_path):
    """Write G-TAD's annotations, which lack b."""
    videos = {
        f"v_{name}": {
            "duration_second": 9.5,
            "duration_frame": 100,
            "feature_frame": 96,
            "annotations": annotated(*actions),
        }
        for name, actions in (
            ("a", [("run", 1.0, 5.0)]),
            ("c", [("jump", 0.0, 1.0), ("sit", 3.0, 4.0)]),
        )
    }
    return dump(tmp_path / "anet_anno_action.json", videos)


def test_gtads_annotations_alone_are_refused_by_name(published):
    with pytest.raises(TaskFileError, match=rf"{published}: .* give video_info_new\.csv too"):
        segment_files.read_truths([published])


@pytest.mark.parametrize("subset", [None, "", 3, ["validation"]])
def test_an_official_video_without_a_subset_is_refused(tmp_path, subset):
    video = {"subset": subset, "duration": 9.5, "annotations": annotated(("run", 1.0, 5.0))}
    path = dump(tmp_path / "official.json", {"database": {"a": video}})
    with pytest.raises(TaskFileError, match=r"official\.json, video 'a': 'subset' must be a"):
        segment_files.read_annotations(path)


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "video_info_new.csv"
    path.write_bytes(b"video,numFrame,subset\r\nv_a,100,validation\r\nv_c,100,training\r\n")
    return path


def predicted(path, results, **changed):
    whole = {"version": "VERSION 1.3", "external_data": {"used": False}, "results": results}
    return dump(path, whole | changed)


def test_both_forms_of_annotations_say_the_same_of_a_video(official, published):
    ours, theirs = (
        segment_files.read_annotations(official),
        segment_files.read_annotations(published),
    )
    assert sorted(ours) == ["a", "b", "c"]
    assert theirs["a"].actions == [Action("run", 1.0, 5.0)] == ours["a"].actions[:1]
    assert (ours["a"].duration, ours["a"].covered) == (9.5, 1.0)
    assert (theirs["a"].duration, theirs["a"].covered) == (9.5, 0.96)


def test_figures_are_of_each_set_of_videos(official, published, listed, tmp_path):
    path = tmp_path / "found.json"
    results = {"a": [Found("run", 0.9, 1.0, 5.0)], "b": [Found("sit", 0.3, 2.0, 8.0)]}
    segment_files.write_predictions(path, results, {"used": True, "details": "CUHK's class scores"})
    for truth in ([official, published], [official, published, listed]):
        found = segment_files.score([path], truth)
        whole, part = found["sets"]
        assert (whole["videos"], whole["instances"], whole["classes"]) == (2, 3, 2)
        assert (part["videos"], part["instances"], part["classes"]) == (1, 1, 1)
        # run: found. sit: one of two found, first.
        assert whole["average_mAP"] == pytest.approx(75)
    shown = segment_files.table(found)
    assert "official: 2 videos, 3 instances" in shown
    assert "CUHK" in shown


def test_the_official_file_and_the_list_of_videos_give_both_sets(official, listed, tmp_path):
    path = predicted(tmp_path / "found.json", {"a": []})
    assert [one["videos"] for one in segment_files.score([path], [official, listed])["sets"]] == [
        2,
        1,
    ]


def test_a_prediction_of_an_unknown_video_counts_as_wrong(official, tmp_path):
    one = {"label": "sit", "segment": [2, 8], "score": 0.5}
    path = predicted(tmp_path / "found.json", {"b": [one], "e": [one | {"score": 0.9}]})
    (found,) = segment_files.score([path], [official])["sets"]
    assert (found["unknown_videos"], found["past_end"], found["predictions"]) == (1, 0, 2)
    shown = segment_files.table(segment_files.score([path], [official]))
    assert "1 predicted videos are not among these: their predictions count as wrong" in shown
    assert "begin after" not in shown
    assert found["mAP"]["0.50"] == pytest.approx(100 * (0 + 0.25) / 2)


def test_predictions_in_milliseconds_are_noticed(official, tmp_path):
    one = {"label": "sit", "segment": [2000, 8000], "score": 0.5}
    path = predicted(tmp_path / "found.json", {"b": [one, one | {"segment": [2, 8]}]})
    (found,) = segment_files.score([path], [official])["sets"]
    assert found["past_end"] == 1
    shown = segment_files.table(segment_files.score([path], [official]))
    assert "1 of the 2 predictions start after their video has ended" in shown


@pytest.mark.parametrize("number", ["NaN", "1e400"])
def test_external_data_must_be_finite(official, tmp_path, number):
    path = predicted(tmp_path / "found.json", {"a": []})
    path.write_text(path.read_text().replace('"used": false', f'"used": {number}'))
    with pytest.raises(TaskFileError, match="'external_data': has a non-finite number"):
        segment_files.score([path], [official])


def test_class_scores_go_by_ids_without_v(tmp_path):
    (tmp_path / "scores.json").write_text(
        '{"class": ["run", "sit"], "results": {"v_a": [0.25, 1], "b": [0, 0.5]}}'
    )
    read = read_class_scores(tmp_path / "scores.json")
    assert read.classes == ["run", "sit"]
    assert {video: row.tolist() for video, row in read.scores.items()} == {
        "a": [0.25, 1],
        "b": [0, 0.5],
    }


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (
            {"a": [{"label": "fly", "segment": [0, 1], "score": 1}]},
            "'a': 'fly' is not one of the 3",
        ),
        (
            {"a": [{"label": "run", "segment": [3, 1], "score": 1}]},
            "prediction 0: the segment ends at 1.0 s",
        ),
        ({"a": [{"label": "run", "segment": [0], "score": 1}]}, "must be two times in seconds"),
        (
            {"a": [{"label": "run", "segment": [0, "1"], "score": 1}]},
            "must be two times in seconds",
        ),
        ({"a": [{"label": "run", "segment": [0, 10**400], "score": 1}]}, "is not a finite number"),
        ({"a": [{"label": "run", "segment": [0, 1]}]}, "prediction 0: None is not a finite"),
        ({"a": [{"label": "run", "segment": [0, 1], "score": "0.5"}]}, "'0.5' is a string, not a"),
        ({"a": [{"label": "run", "segment": [0, math.nan], "score": 1}]}, "nan is not a finite"),
        ({"a": [{"label": "run", "segment": [0, 1], "score": math.inf}]}, "inf is not a finite"),
        ({"a": [{"label": 3, "segment": [0, 1], "score": 1}]}, "'label' must be a string, got 3"),
        ({"a": {"label": "run"}}, "video 'a': must be a list"),
        ({"a": [7]}, "prediction 0: must be an object, got 7"),
        ([], "'results': must be an object"),
        ({"v_a": []}, "without v_, got 'v_a'"),
    ],
)
def test_invalid_predictions_are_refused(official, tmp_path, results, message):
    path = predicted(tmp_path / "found.json", results)
    with pytest.raises(TaskFileError, match=message):
        segment_files.score([path], [official])


def test_other_invalid_files_are_refused(official, published, listed, tmp_path):
    path = predicted(tmp_path / "found.json", {})
    with pytest.raises(TaskFileError, match=r"give video_info_new\.csv"):
        segment_files.score([path], [published])
    with pytest.raises(TaskFileError, match="no ground truth"):
        segment_files.score([path], [listed])
    with pytest.raises(TaskFileError, match="version missing"):
        segment_files.score([dump(path, {"results": {}, "external_data": {}})], [official])
    strange = dump(tmp_path / "strange.json", {"video7": {"annotations": []}})
    with pytest.raises(TaskFileError, match="not a format of ActivityNet"):
        segment_files.read_annotations(strange)
    scores = dump(tmp_path / "scores.json", {"class": ["run", "sit"], "results": {"a": [1]}})
    with pytest.raises(TaskFileError, match="video 'a': 1 scores, but there are 2 classes"):
        read_class_scores(scores)


@pytest.mark.parametrize("kind", ["official", "published", "listed"])
def test_a_second_file_of_a_kind_is_refused_by_name(kind, official, published, listed, tmp_path):
    files = {"official": official, "published": published, "listed": listed}
    second = tmp_path / f"second-{files[kind].name}"
    second.write_bytes(files[kind].read_bytes())
    segment_files.read_truths(list(files.values()))
    with pytest.raises(TaskFileError, match=f"2 files of .*, the second is .*{second.name}"):
        segment_files.read_truths([*files.values(), second])


@pytest.mark.parametrize("kind", ["official", "published"])
def test_a_true_segment_that_is_reversed_is_refused(kind, tmp_path):
    of_video = {"annotations": annotated(("run", 5.0, 1.0))}
    of_video |= {"subset": "validation", "duration": 9.5} if kind == "official" else {}
    of_video |= {"duration_second": 9.5, "duration_frame": 9, "feature_frame": 9}
    data = {"v_a": of_video} if kind == "published" else {"database": {"a": of_video}}
    with pytest.raises(
        TaskFileError, match=r"annotation 0: the segment ends at 1\.0 s, before it starts"
    ):
        segment_files.read_truths([dump(tmp_path / "truth.json", data)])


def test_an_instance_without_length_is_kept_and_never_found(tmp_path):
    video = {"subset": "validation", "duration": 9.5, "annotations": annotated(("run", 4, 4))}
    truth = dump(tmp_path / "truth.json", {"database": {"a": video}})
    found = predicted(tmp_path / "found.json", {"a": annotated_with_score("run", 4, 4)})
    (one,) = segment_files.score([found], [truth])["sets"]
    assert (one["instances"], one["average_mAP"]) == (1, 0.0)


def annotated_with_score(label, start, end):
    return [{"label": label, "score": 0.5, "segment": [start, end]}]
