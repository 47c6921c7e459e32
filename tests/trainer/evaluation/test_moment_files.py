import json

import pytest

from trainer.evaluation import moment_files
from trainer.evaluation.moment_files import Query, Span
from trainer.evaluation.prediction_files import TaskFileError

TRUTH = {
    "v_a": {
        "duration": 10.0,
        "timestamps": [[0, 4.0], [6, 12], [5, 5], [2, 3]],
        "sentences": [" A man runs.", "He sits.", "Nothing.", "He sits."],
    },
    "b": {"duration": 8, "timestamps": [[-1, 2]], "sentences": ["A dog."]},
}
FOUND = [
    {"vid": "v_b", "query": "A dog.", "pred_relevant_windows": [[0, 2, 0.5]]},
    {"vid": "a", "query": "He sits.", "pred_relevant_windows": [[0, 1, 0.25], [6, 10, 0.75]]},
    {"vid": "v_a", "query": "A man runs.", "pred_relevant_windows": []},
    {"vid": "v_a", "query": "He sits. ", "pred_relevant_windows": [[2, 3.25, -1]]},
]


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "val_1.json"
    path.write_text(json.dumps(TRUTH))
    return path


@pytest.fixture
def score(truth, tmp_path):
    def score(lines):
        path = tmp_path / "spans.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return moment_files.score(path, truth)

    return score


def test_segments_end_with_their_video_and_those_without_length_are_left_out(truth):
    read = moment_files.read_truth(truth)
    assert (read.name, read.dropped) == ("val_1", 1)
    assert read.queries == [
        Query("a", "A man runs.", 0, 4, 10),
        Query("a", "He sits.", 6, 10, 10),
        Query("a", "He sits.", 2, 3, 10),
        Query("b", "A dog.", 0, 2, 8),
    ]


def test_lines_match_sentences_and_spans_are_ranked_by_score(score):
    figures = score(FOUND)
    assert (figures["queries"], figures["videos"], figures["missed"]) == (4, 2, 1)
    # IoU of the first span: none, 1, 0.8, 1.
    assert figures["found"]["R@1"] == {"0.3": 75, "0.5": 75, "0.7": 75}
    assert figures["found"]["mIoU"] == pytest.approx(70)
    table = moment_files.table(figures)
    assert "val_1: 4 texts, 2 videos" in table
    assert "1 texts have no span" in table and "1 segments" in table
    assert "random" not in table
    # Equal sentences of a video take their lines in order.
    other = [FOUND[0], FOUND[3], FOUND[1], FOUND[2]]
    assert score(other)["found"]["mIoU"] == pytest.approx(100 / 4)


def test_of_equal_scores_the_earlier_span_comes_first(score):
    tied = FOUND[:2] + FOUND[2:]
    tied[0] = FOUND[0] | {"pred_relevant_windows": [[4, 6, 1], [0, 2, 1]]}
    figures = score(tied)
    assert figures["found"]["R@1"]["0.5"] == 50
    assert figures["found"]["R@5"]["0.5"] == 75


def test_what_is_written_is_read_again(truth, tmp_path):
    read = moment_files.read_truth(truth)
    found = [[Span(0.1, 1 / 3, 0.5), Span(0.0, 4.0, 0.25)], [], [Span(0.0, 10.0, -3.0)], []]
    moment_files.write_predictions(tmp_path / "spans.jsonl", read.queries, found)
    assert moment_files.read_predictions(tmp_path / "spans.jsonl", read.queries) == found


@pytest.mark.parametrize(
    ("place", "changed", "message"),
    [
        (0, {"vid": "c"}, r"spans\.jsonl:1: .* does not have 'A dog\.' of video 'c' at all"),
        (2, {"query": "He sits."}, r":4: .* does not have 'He sits\.' of video 'a' as often"),
        (0, {"pred_relevant_windows": [[2, 1, 0]]}, r":1, span 0: ends at 1 s, not after"),
        (0, {"pred_relevant_windows": [[2, 2, 0]]}, r":1, span 0: ends at 2 s, not after"),
        (0, {"pred_relevant_windows": [[0, 1, 0], [7, 9, 0]]}, r"span 1: 7 to 9 s is not within"),
        (0, {"pred_relevant_windows": [[-1, 2, 0]]}, r"span 0: -1 to 2 s is not within"),
        (0, {"pred_relevant_windows": [[0, 1]]}, r"must be \[start, end, score\]"),
        (
            0,
            {"pred_relevant_windows": [[0, 1, float("nan")]]},
            r":1, span 0, score: nan is not a finite number",
        ),
        (0, {"pred_relevant_windows": [[0, float("inf"), 0]]}, "span 0, end: inf is not a finite"),
        (0, {"pred_relevant_windows": [{}]}, r"must be \[start, end, score\]"),
        (0, {"pred_relevant_windows": None}, "must be a list, got None"),
        (0, {"query": None}, "'query' must be a string, got None"),
    ],
)
def test_an_invalid_line_is_refused_by_name(score, place, changed, message):
    lines = [dict(line) for line in FOUND]
    lines[place] |= changed
    with pytest.raises(TaskFileError, match=message):
        score(lines)


def test_a_missing_sentence_is_refused_by_name(score):
    with pytest.raises(TaskFileError, match=r"no line for 1 of 4 sentences, such as 'He sits\.'"):
        score(FOUND[:3])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be an object, got"),
        ({}, "has no sentence with a segment"),
        ({"v_a": []}, "video 'v_a': must be an object"),
        ({"v_a": {"duration": 0, "timestamps": [], "sentences": []}}, "must be above 0 s, got 0"),
        ({"v_a": {"timestamps": [], "sentences": []}}, "'duration': None is not a finite"),
        ({"v_a": {"duration": 9, "sentences": []}}, "'timestamps': must be a list, got None"),
        (
            {"v_a": {"duration": 9, "timestamps": [[0, 1]], "sentences": []}},
            "1 timestamps, but 0 sentences",
        ),
        (
            {"v_a": {"duration": 9, "timestamps": [[0]], "sentences": ["x"]}},
            r"timestamp 0: must be \[start, end\]",
        ),
        (
            {"v_a": {"duration": 9, "timestamps": [[0, float("nan")]], "sentences": ["x"]}},
            "timestamp 0, end: nan is not a finite",
        ),
        (
            {"v_a": {"duration": 9, "timestamps": [[0, 1]], "sentences": [3]}},
            "sentence 0: must be a string",
        ),
        ({"v_a": TRUTH["v_a"], "a": TRUTH["v_a"]}, "video 'a': the video is there with and"),
        ({"database": {}}, "'duration': None is not a finite"),
    ],
)
def test_another_ground_truth_is_refused_by_name(tmp_path, value, message):
    path = tmp_path / "val_2.json"
    path.write_text(json.dumps(value))
    with pytest.raises(TaskFileError, match=message) as error:
        moment_files.read_truth(path)
    assert str(path) in str(error.value)
