"""Scoring of prediction files without a model, by each benchmark's own rules and file formats.

This module loads neither JAX nor TensorFlow.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trainer.evaluation import action_files as action
from trainer.evaluation import box_files as spatiotemporal
from trainer.evaluation import moment_files as moments
from trainer.evaluation import qa_files as qa
from trainer.evaluation import retrieval_files as retrieval
from trainer.evaluation import segment_files as localisation
from trainer.evaluation.prediction_files import Path, TaskFileError


class Scorer(NamedTuple):
    """The functions that score a task's files."""

    score: Callable[..., Mapping[str, Any]]  # (predictions, truth) -> metrics
    table: Callable[[Any], str]  # metrics -> text for the terminal
    several: bool = False  # True takes lists of files: one per split, or several of truth


SCORERS = {
    "retrieval": Scorer(retrieval.score, retrieval.table),
    "qa": Scorer(qa.score, qa.table),
    "action": Scorer(action.score, action.table, several=True),
    "localisation": Scorer(localisation.score, localisation.table, several=True),
    "moments": Scorer(moments.score, moments.table),
    "spatiotemporal": Scorer(spatiotemporal.score, spatiotemporal.table, several=True),
}


def score(task: str, predictions: Sequence[Path], truth: Sequence[Path]) -> Mapping[str, Any]:
    """Return the metrics of prediction files.

    Args:
      task: one of `SCORERS`.
      predictions: the files to score; several if the task has several splits.
      truth: the benchmark's ground-truth files.

    Raises:
      TaskFileError: a file has another format, or the files do not match.
    """
    scorer = SCORERS[task]
    if scorer.several:
        return scorer.score(predictions, truth)
    if len(predictions) != 1 or len(truth) != 1:
        raise TaskFileError(
            f"{task} takes one file of predictions and one of ground truth, got "
            f"{len(predictions)} and {len(truth)}"
        )
    return scorer.score(predictions[0], truth[0])
