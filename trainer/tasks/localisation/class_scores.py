"""Class scores of whole videos, in the format of CUHK's published scores for 2017.

{"class": [NAME, …], "results": {ID: [a score a class, …], …}}
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from trainer.evaluation.prediction_files import Path, TaskFileError, json_number, read_json, shorten
from trainer.evaluation.segment_files import as_list, as_object


class ClassScores(NamedTuple):
    """The score of each class in each video."""

    classes: list[str]
    scores: dict[str, Float[np.ndarray, " classes"]]  # scores by video id


def read_class_scores(path: Path) -> ClassScores:
    """Read class scores of videos in the format of CUHK's cuhk_val_simp_share.json.

    Raises:
      TaskFileError: the file has another format, or a video lacks a score for a class.
    """
    data = as_object(str(path), read_json(path))
    classes = as_list(f"{path}, 'class'", data.get("class"))
    if not classes or not all(isinstance(name, str) for name in classes):
        raise TaskFileError(f"{path}: 'class' must be a list of class names")
    scores = {}
    for video, values in as_object(f"{path}, 'results'", data.get("results")).items():
        where = f"{path}, video {shorten(video)}"
        row = [json_number(where, value) for value in as_list(where, values)]
        if len(row) != len(classes):
            raise TaskFileError(f"{where}: {len(row)} scores, but there are {len(classes)} classes")
        scores[video.removeprefix("v_")] = np.array(row)
    return ClassScores(classes, scores)
