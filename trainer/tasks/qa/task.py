"""Question answering as classification: group tokens and question fused, an answer chosen.

Source: section 4.3.2 and table 9; the fusion is in head.py. Cross-entropy over a vocabulary of
answers (BUTD's own loss, for VQA's ten answers a question, is not for one answer). Questions whose
answer is not in the vocabulary are not trained on, and answered wrong in the test.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from protos.v1 import clip_pb2
from trainer.configs.config import Config as RunConfig
from trainer.configs.fields import check_counts, check_range
from trainer.data.annotations import read_annotations
from trainer.data.batches import Examples
from trainer.data.snapshot import Snapshot
from trainer.data.types import ExampleBatch, Progress
from trainer.evaluation import qa_accuracy, qa_files
from trainer.finite import finite
from trainer.inference.encoder import Encoder, frames_in_batches
from trainer.method.models.transformer import at_least_float32
from trainer.runs.checkpoint import Loaded
from trainer.tasks.encoders import (
    in_chunks,
    padded,
    pooled_groups,
    question_state,
    video_in_training,
)
from trainer.tasks.qa.head import Head
from trainer.tasks.task import Recipe, TaskError, Views, task_of

NAME: str = "qa"

# Questions answered at once.
_QUESTIONS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Config:
    """Question answering's own settings."""

    frozen: bool = False  # trains the head alone
    # The paper says both that its fusion head is "adapted from BUTD" and that it is "simple linear
    # layers": attention over the group tokens, or the product of two projections.
    fusion: Literal["butd", "linear"] = "butd"
    width: int = 1024  # of the fused vector; open in the paper, this is BUTD's
    attention_dropout: float = 0.2  # before the attention's last layer; BUTD's code
    dropout: float = 0.5  # before the classifier's last layer; BUTD's code
    # Classes: the most frequent answers of the training questions; None: all of them, which for
    # MSVD-QA are 1,852. The paper's 2,423 are those of training, validation and test questions
    # together (--answers): 571 are classes without an example.
    answers: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "task")
        for name in ("attention_dropout", "dropout"):
            check_range("task", name, getattr(self, name), 0.0, below=1.0)


_RECIPE = ("batch=64", "epochs=30")
TEXTS: int = 1
RECIPES: dict[str, Recipe] = {
    "msrvtt-qa": Recipe(Config(answers=1500), (*_RECIPE, "optimizer.learning_rate=0.1")),
    # As printed; 2,000 times below the other set's with the same optimizer, which is doubtful.
    "msvd-qa": Recipe(Config(), (*_RECIPE, "optimizer.learning_rate=5e-5")),
    # Frozen encoders: end to end, pre-trained ones come no further than fresh ones in as much time.
    "shapes": Recipe(
        Config(frozen=True, width=128, attention_dropout=0.0, dropout=0.1),
        ("optimizer.name=adamw", "optimizer.learning_rate=3e-3", "batch=64", "epochs=4"),
    ),
}


def classes(clips: Sequence[clip_pb2.Clip], settings: Config) -> list[str]:
    """The vocabulary of answers, in the order of the cut."""
    questions = [question for clip in clips for question in clip.questions]
    if not questions:
        raise TaskError(
            "the snapshot's clips have no question: build one of MSRVTT-QA or MSVD-QA with "
            "svilm-pipelines"
        )
    # The cut's ties go by first occurrence in the benchmark's file, whose ids count upwards;
    # records have another order.
    if all(question.question_id.isdecimal() for question in questions):
        questions.sort(key=lambda question: int(question.question_id))
    return qa_accuracy.vocabulary([question.answer for question in questions], settings.answers)


def examples(clips: Sequence[clip_pb2.Clip], classes: Sequence[str], settings: Config) -> Examples:
    """A question each, of those whose answer is in the vocabulary."""
    number = {answer: place for place, answer in enumerate(classes)}
    known = [
        (record, question.text, number[question.answer])
        for record, clip in enumerate(clips)
        for question in clip.questions
        if question.answer in number
    ]
    if not known:
        raise TaskError("no question of the snapshot has an answer in the vocabulary")
    records, texts, labels = zip(*known, strict=True)
    return Examples(
        np.array(records, np.int64), [(text,) for text in texts], np.array(labels, np.int32)
    )


def _head(params: PyTree, settings: Config) -> Head:
    return _head_of(params["head"]["answer"]["bias"].shape[0], settings)


def _head_of(answers: int, settings: Config) -> Head:
    return Head(
        answers, settings.width, settings.fusion, settings.attention_dropout, settings.dropout
    )


def init_head(key: Key[Array, ""], config: RunConfig, settings: Config, classes: int) -> PyTree:
    """A fresh fusion and classifier."""
    groups = jnp.zeros((1, config.video.group_tokens, config.video.width))
    head = _head_of(classes, settings)
    return head.init(key, groups, jnp.zeros((1, config.text.width)))["params"]


def trained(settings: Config) -> tuple[str, ...] | None:
    """The head alone, if the encoders are frozen."""
    return ("head",) if settings.frozen else None


class Encoded(NamedTuple):
    """What is fused, float32."""

    groups: Float[Array, "b k d"]
    question: Float[Array, "b q"]


def encode(
    params: PyTree,
    batch: ExampleBatch,
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    settings: Config,
) -> Encoded:
    """Group tokens and questions."""
    assert batch.text_ids is not None and batch.text_mask is not None  # `examples` gives texts
    video = video_in_training(params, batch.frames, keys, config, frozen=settings.frozen)
    question = question_state(params, batch.text_ids, batch.text_mask, config)
    return Encoded(at_least_float32(video.features.groups), question)


def losses(
    params: PyTree,
    encoded: Encoded,
    batch: ExampleBatch,
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    settings: Config,
) -> dict[str, Float[Array, " b"]]:
    """Cross-entropy over the vocabulary."""
    head = _head(params, settings)
    logits: Any = head.apply({"params": params["head"]}, encoded.groups, encoded.question, keys)
    assert batch.label is not None  # `examples` gives labels
    cost = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    right = jnp.argmax(logits, axis=-1) == batch.label
    return {"loss": cost, "accuracy": right.astype(jnp.float32)}


class OfVocabulary(qa_accuracy.Accuracy):
    """With what the run can say at all, which tells MSVD-QA's 1,852 answers from its 2,423."""

    vocabulary: int  # answers
    ceiling: float  # percent of the questions whose true answer is one of these


class Answers(NamedTuple):
    """To the questions of a test set."""

    answers: dict[str, str]  # by question id
    questions: list[qa_files.Question]
    vocabulary: list[str]

    def figures(self) -> OfVocabulary:
        """Exact match over all questions."""
        known = set(self.vocabulary)
        within = sum(question.answer in known for question in self.questions)
        return {
            **qa_files.figures(self.answers, self.questions),
            "vocabulary": len(known),
            "ceiling": 100.0 * within / len(self.questions),
        }

    def write(self, path: pathlib.Path) -> None:
        """The JSON file of answers."""
        qa_files.write(path, self.answers)


def predict(run: Loaded, snapshot: Snapshot, progress: Progress, views: Views) -> Answers:
    """Answers every question, one without its answer in the vocabulary too.

    Raises:
      TaskError: the run is not of this task, or the snapshot has no question.
      NonFiniteError: what the model says of a question is not finite; names it.
      SnapshotError: a record is damaged, or the snapshot does not suit the model.
    """
    if views != Views():
        raise TaskError("question answering looks at one clip and one crop of a video")
    task = task_of(run, NAME)
    settings, vocabulary = Config(**task["config"]), task["classes"]
    clips = read_annotations(snapshot)
    encoder = Encoder(run.config, run.tokenizer, run.params)
    answers, questions, done = {}, [], 0
    for frames, texts in frames_in_batches(snapshot, encoder, progress):
        groups = np.asarray(pooled_groups(run.params, frames, encoder.config))
        asked = [
            (row, question)
            for row, clip in enumerate(clips[done : done + len(texts)])
            for question in clip.questions
        ]
        done += len(texts)
        for some in in_chunks(len(asked), _QUESTIONS_AT_ONCE):
            rows = padded(np.array([row for row, _ in asked[some]]), _QUESTIONS_AT_ONCE)
            chunk = [question for _, question in asked[some]]
            texts_of = [question.text for question in chunk]
            ids, mask = run.tokenizer.encode(
                texts_of + [""] * (_QUESTIONS_AT_ONCE - len(chunk)), run.config.text.tokens
            )
            logits = finite(
                "the model's scores of answers",
                _logits(run.params, groups[rows], ids, mask, encoder.config, settings),
                [f"question {question.question_id}" for question in chunk],
            )
            best = np.argmax(logits, axis=-1)
            for question, number in zip(chunk, best.tolist(), strict=False):
                name = question.question_id
                questions.append(qa_files.Question(name, question.text, question.answer))
                answers[name] = vocabulary[number]
    if not questions:
        raise TaskError(f"{snapshot.folder} has no question")
    if len(answers) < len(questions):
        raise TaskError(f"{snapshot.folder} has two questions of one id, or without any")
    return Answers(answers, questions, vocabulary)


@partial(jax.jit, static_argnames=("config", "settings"))
def _logits(
    params: PyTree,
    groups: Float[Array, "b k d"],
    ids: Int[Array, "b l"],
    mask: Bool[Array, "b l"],
    config: RunConfig,
    settings: Config,
) -> Float[Array, "b answers"]:
    question = question_state(params, ids, mask, config)
    logits: Any = _head(params, settings).apply({"params": params["head"]}, groups, question)
    return logits
