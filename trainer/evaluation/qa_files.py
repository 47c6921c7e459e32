"""Question answering's files: the benchmarks' questions, and the answers to score.

Ground truth is a file of MSRVTT-QA or MSVD-QA as published, a JSON array of
{"id", "question", "answer", "video_id"}. It may also be the JSON Lines that ClipBERT and ALPRO made
from them. Those have no ids, and their questions are numbered from 0.

Answers are a JSON array, or JSON Lines, of {"question_id", "answer"}, the format of VQA's results.
"id" is also accepted for the id. A question without an answer counts as wrong.

Answers are stripped of white space, as in the records. A true answer must not be empty.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainer.evaluation import qa_accuracy
from trainer.evaluation.prediction_files import Path, TaskFileError, read_objects, shorten, text_of


class Question(NamedTuple):
    """A question and its true answer."""

    question_id: str
    text: str
    answer: str


def score(predictions: Path, truth: Path) -> qa_accuracy.Accuracy:
    """Score a file of answers.

    Raises:
      TaskFileError: a file has another format, or answers an unknown question, or one twice.
    """
    questions = read_truth(truth)
    return figures(read_answers(predictions, questions), questions)


def figures(answers: Mapping[str, str], questions: Sequence[Question]) -> qa_accuracy.Accuracy:
    """Return the accuracy of answers by question id, over all questions."""
    return qa_accuracy.accuracy(
        [question.text for question in questions],
        [question.answer for question in questions],
        [answers.get(question.question_id) for question in questions],
    )


def read_truth(path: Path) -> list[Question]:
    """Read the questions of a file, in its order.

    Raises:
      TaskFileError: the file has none of the module's formats, an id twice, an empty answer, or no
        question.
    """
    questions = []
    seen: set[str] = set()
    for place, row in enumerate(read_objects(path)):
        name = text_of(row, "id", "question_id") if _has_id(row.values) else str(place)
        if name in seen:
            raise TaskFileError(f"{row.where}: {name} is the id of an earlier question")
        seen.add(name)
        if not (answer := text_of(row, "answer").strip()):
            raise TaskFileError(
                f"{row.where}: question {name} has an empty answer, which cannot be scored: give a "
                "file with published answers"
            )
        questions.append(Question(name, text_of(row, "question"), answer))
    if not questions:
        raise TaskFileError(f"{path} has no question")
    return questions


def _has_id(record: dict[str, object]) -> bool:
    return "id" in record or "question_id" in record


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read answers by question id.

    Raises:
      TaskFileError: the file has none of the module's formats, or answers a question that is not
        one of `questions`, or one twice.
    """
    known = {question.question_id for question in questions}
    answers = {}
    for row in read_objects(path):
        name = text_of(row, "question_id", "id")
        if name not in known:
            raise TaskFileError(
                f"{row.where}: {shorten(name)} is not a question of the ground truth"
            )
        if name in answers:
            raise TaskFileError(f"{row.where}: question {name} has an answer already")
        answers[name] = text_of(row, "answer").strip()
    return answers


def write(path: Path, answers: Mapping[str, str]) -> None:
    """Write answers by question id as a JSON array, with integer ids as numbers."""
    rows = [
        {"question_id": int(name) if _is_number(name) else name, "answer": answer}
        for name, answer in answers.items()
    ]
    pathlib.Path(path).write_text(json.dumps(rows, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and str(int(name)) == name


def table(found: Mapping[str, Any]) -> str:
    """Format the metrics as a table for the terminal, with the eight most frequent types."""
    lines = [f"question answering, {found['questions']:,} questions    accuracy"]
    lines.append(f"  {'all':<33}{found['accuracy']:7.2f}")
    for kind, part in list(found["types"].items())[:8]:
        name = f"{kind} ({part['questions']:,})"
        lines.append(f"  {name:<33}{part['accuracy']:7.2f}")
    if "vocabulary" in found:  # Only a run has a vocabulary, a file of answers has none.
        name = f"upper bound, {found['vocabulary']:,} answers"
        lines.append(f"  {name:<33}{found['ceiling']:7.2f}")
    if found.get("hidden"):
        lines.append(f"  {found['hidden']:,} questions without a published answer are not scored")
    if found["unanswered"]:
        lines.append(f"  {found['unanswered']:,} questions without an answer count as wrong")
    return "\n".join(lines)
