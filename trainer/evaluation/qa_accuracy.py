"""Question answering's metric and its vocabulary of answers.

An answer is correct if it equals the true one exactly. All questions of the test set count. A
question with a true answer outside the vocabulary counts as wrong. Without such questions, the
accuracy on MSVD-QA would be that of 94 % of its questions.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import TypedDict


class OfType(TypedDict):
    """The accuracy on the questions with the same first word."""

    accuracy: float  # percent
    questions: int


class Accuracy(TypedDict):
    """The accuracy in percent; `types` by the questions' first word, the most frequent first."""

    accuracy: float
    questions: int
    unanswered: int  # questions without an answer, counted as wrong
    types: dict[str, OfType]


def vocabulary(answers: Iterable[str], most: int | None = None) -> list[str]:
    """Return the most frequent answers; ties rank by first occurrence.

    Args:
      answers: answers to all questions, in order.
      most: maximum number of answers; None keeps all.

    >>> vocabulary(["cat", "man", "dog", "man", "dog", "run"], most=3)
    ['man', 'dog', 'cat']
    """
    # Counter keeps the order of first occurrence, and sorting is stable.
    counts = collections.Counter(answers)
    return sorted(counts, key=lambda answer: -counts[answer])[:most]


def type_of(question: str) -> str:
    """Return a question's type: its first word in lower case.

    >>> type_of("What is chewing on a nut?")
    'what'
    """
    return (question.lower().split() or [""])[0]


def accuracy(
    questions: Sequence[str], answers: Sequence[str], predicted: Sequence[str | None]
) -> Accuracy:
    """Return the exact-match accuracy over all questions.

    Args:
      questions: texts of the questions.
      answers: true answers.
      predicted: predicted answers; None without a prediction.

    >>> accuracy(["who sings?", "what is red?"], ["man", "car"], ["man", None])["accuracy"]
    50.0
    """
    right, asked = collections.Counter[str](), collections.Counter[str]()
    for question, answer, given in zip(questions, answers, predicted, strict=True):
        kind = type_of(question)
        asked[kind] += 1
        right[kind] += given == answer
    return {
        "accuracy": _percent(right.total(), asked.total()),
        "questions": asked.total(),
        "unanswered": sum(given is None for given in predicted),
        "types": {
            kind: {"accuracy": _percent(right[kind], count), "questions": count}
            for kind, count in asked.most_common()
        },
    }


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
