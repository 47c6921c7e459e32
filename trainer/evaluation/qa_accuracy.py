"""Question answering's metric and its vocabulary of answers.

An answer is right if it is the true one, letter by letter. All questions of the test set count:
one whose true answer is not in the vocabulary is answered wrong (left out, accuracy on MSVD-QA
would be that of 94 % of its questions).
"""

import collections
from collections.abc import Iterable, Sequence
from typing import TypedDict


class OfType(TypedDict):
    """Of the questions with one first word."""

    accuracy: float  # percent
    questions: int


class Accuracy(TypedDict):
    """Accuracy in percent; `types` by the questions' first word, the most frequent first."""

    accuracy: float
    questions: int
    unanswered: int  # counted as wrong
    types: dict[str, OfType]


def vocabulary(answers: Iterable[str], most: int | None = None) -> list[str]:
    """The most frequent answers; of equally frequent ones those that come first.

    Args:
      answers: of all questions, in their order.
      most: how many to keep; None: all.

    >>> vocabulary(["cat", "man", "dog", "man", "dog", "run"], most=3)
    ['man', 'dog', 'cat']
    """
    # Counter keeps the order of first occurrence, and sorting is stable.
    counts = collections.Counter(answers)
    return sorted(counts, key=lambda answer: -counts[answer])[:most]


def type_of(question: str) -> str:
    """A question's type: its first word.

    >>> type_of("What is chewing on a nut?")
    'what'
    """
    return (question.lower().split() or [""])[0]


def accuracy(
    questions: Sequence[str], answers: Sequence[str], predicted: Sequence[str | None]
) -> Accuracy:
    """Exact match over all questions.

    Args:
      questions: their texts.
      answers: the true ones.
      predicted: the given ones; None where there is none.

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
