import json

import pytest

from trainer.evaluation import qa_files
from trainer.evaluation.prediction_files import TaskFileError

# As published, and a question more.
TRUTH = [
    {"answer": "animal", "id": 0, "question": "what is chewing on a nut?", "video_id": 1},
    {"answer": "man", "id": 7, "question": "who plays?", "video_id": 2, "category_id": 3},
    {"answer": "two", "id": 8, "question": "how many sing?", "video_id": 2},
    {"answer": "man", "id": 9, "question": "who is it?", "video_id": 3},
]


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "test_qa.json"
    path.write_text(json.dumps(TRUTH))
    return path


def test_answers_are_scored_by_their_ids(truth, tmp_path):
    given = {"9": "man", "0": "animal", "7": "Man"}  # letters count; 8 has no answer
    qa_files.write(tmp_path / "a.json", given)
    assert json.loads((tmp_path / "a.json").read_text())[0] == {"question_id": 9, "answer": "man"}
    found = qa_files.score(tmp_path / "a.json", truth)
    assert (found["accuracy"], found["unanswered"]) == (50, 1)
    assert found["types"] == {
        "who": {"accuracy": 50.0, "questions": 2},
        "what": {"accuracy": 100.0, "questions": 1},
        "how": {"accuracy": 0.0, "questions": 1},
    }
    assert "who (2)                            50.00" in qa_files.table(found)
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"id": name, "answer": one}) + "\n" for name, one in given.items())
    )
    assert qa_files.score(tmp_path / "a.jsonl", truth) == found


def test_answers_are_stripped_as_in_records(truth, tmp_path):
    padded = [one | {"answer": f" {one['answer']} "} for one in TRUTH]
    (tmp_path / "padded.json").write_text(json.dumps(padded))
    assert qa_files.read_truth(tmp_path / "padded.json") == qa_files.read_truth(truth)
    (tmp_path / "a.json").write_text('[{"question_id": 7, "answer": "man "}]')
    assert qa_files.score(tmp_path / "a.json", truth)["accuracy"] == 25


@pytest.mark.parametrize("answer", ["", " "])
def test_an_empty_true_answer_is_refused(tmp_path, answer):
    (tmp_path / "hidden.json").write_text(json.dumps([TRUTH[0] | {"answer": answer}]))
    with pytest.raises(TaskFileError, match="entry 0: question 0 has an empty answer"):
        qa_files.read_truth(tmp_path / "hidden.json")


def test_questions_without_ids_are_numbered(tmp_path):
    lines = [{k: v for k, v in one.items() if k != "id"} for one in TRUTH]
    (tmp_path / "test.jsonl").write_bytes(
        b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, lines)).encode()
    )
    assert [one.question_id for one in qa_files.read_truth(tmp_path / "test.jsonl")] == list("0123")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"question_id": 5, "answer": "a"}]', r"a\.json, entry 0: '5' is not a question"),
        (
            '[{"question_id": 7, "answer": "a"}, {"id": "7", "answer": "b"}]',
            "entry 1: question 7 has",
        ),
        ('[{"question_id": 7}]', "entry 0: 'answer' is missing"),
        ('[{"answer": "a"}]', "entry 0: 'question_id' or 'id' is missing"),
        ('[{"question_id": 7, "answer": null}]', "entry 0: 'answer' must be a string, got None"),
        ('["man"]', "entry 0: must be a JSON object, got 'man'"),
        ('{"id": 7, "answer": "a"}\n{"id": 8, "answer"\n', r"a\.json:2: not JSON"),
        ('[{"id": 7, "answer": "a"},\n}]', r"a\.json:2: not JSON"),
        (b"[\n\xff]", r"a\.json:2: not UTF-8"),
    ],
)
def test_faults_name_the_entry(truth, tmp_path, text, message):
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TaskFileError, match=message):
        qa_files.score(tmp_path / "a.json", truth)


def test_a_truth_with_an_id_twice_or_no_question_is_refused(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps([TRUTH[0], TRUTH[0]]))
    with pytest.raises(TaskFileError, match="entry 1: 0 is the id of an earlier question"):
        qa_files.read_truth(tmp_path / "t.json")
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(TaskFileError, match="has no question"):
        qa_files.read_truth(tmp_path / "t.json")
    with pytest.raises(TaskFileError, match=r"none\.json cannot be read: No such file"):
        qa_files.read_truth(tmp_path / "none.json")
