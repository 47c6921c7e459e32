"""Scores prediction files alone, each task by the benchmark's own rules and files.

Loads neither JAX nor TensorFlow.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trainer.evaluation import action_files as action
from trainer.evaluation import box_files as spatiotemporal
from trainer.evaluation import qa_files as qa
from trainer.evaluation import retrieval_files as retrieval
from trainer.evaluation import segment_files as localisation
from trainer.evaluation.prediction_files import Path, TaskFileError


class Scorer(NamedTuple):
    """How a task's files are scored."""

    score: Callable[..., Mapping[str, Any]]  # (predictions, truth) -> figures
    table: Callable[[Any], str]  # figures -> text for a terminal
    several: bool = False  # takes lists of files: one for each split, or several of truth


SCORERS = {
    "retrieval": Scorer(retrieval.score, retrieval.table),
    "qa": Scorer(qa.score, qa.table),
    "action": Scorer(action.score, action.table, several=True),
    "localisation": Scorer(localisation.score, localisation.table, several=True),
    "spatiotemporal": Scorer(spatiotemporal.score, spatiotemporal.table, several=True),
}


def score(task: str, predictions: Sequence[Path], truth: Sequence[Path]) -> Mapping[str, Any]:
    """The figures of prediction files.

    Args:
      task: one of `SCORERS`.
      predictions: the files; more than one where the task has several splits.
      truth: the benchmark's files of what is true.

    Raises:
      TaskFileError: a file is not of its form, or they do not go together.
    """
    scorer = SCORERS[task]
    if scorer.several:
        return scorer.score(predictions, truth)
    if len(predictions) != 1 or len(truth) != 1:
        raise TaskFileError(
            f"{task} is scored with one file of predictions and one of ground truth, got "
            f"{len(predictions)} and {len(truth)}"
        )
    return scorer.score(predictions[0], truth[0])
