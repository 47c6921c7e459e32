import pytest

from protos.v1 import clip_pb2
from trainer.evaluation import qa_files
from trainer.tasks.qa import task as qa
from trainer.tasks.task import TaskError


def asked(*answers):
    clip = clip_pb2.Clip()
    for number, answer in enumerate(answers):
        clip.questions.add(question_id=str(number), text="what is it?", answer=answer)
    return [clip]


def test_hidden_answers_are_no_class_and_no_example():
    clips = asked("", "ring", "", "", "disc")
    assert qa.classes(clips, qa.Config()) == ["ring", "disc"]
    labels = qa.examples(clips, ["ring", "disc"], qa.Config()).labels
    assert labels is not None and labels.tolist() == [0, 1]
    with pytest.raises(TaskError, match="none of the snapshot's 2 questions has an answer"):
        qa.classes(asked("", ""), qa.Config())


def test_hidden_answers_are_counted_and_not_scored():
    questions = [
        qa_files.Question("0", "what is it?", "ring"),
        qa_files.Question("1", "what is it?", ""),
    ]
    answers = {"0": "ring", "1": "disc"}
    found = qa.Answers(answers, questions, ["ring", "disc"]).figures()
    assert (found["accuracy"], found["questions"], found["hidden"]) == (100, 1, 1)
    assert "1 questions without a published answer are not scored" in qa_files.table(found)
    with pytest.raises(TaskError, match="none of the 1 questions has a published answer"):
        qa.Answers(answers, questions[1:], ["ring", "disc"]).figures()
