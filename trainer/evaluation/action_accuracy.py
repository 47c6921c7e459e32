"""Action recognition's metrics: top-1 accuracy of a split, and the mean over splits.

A video has one class. Its prediction is the class with the highest mean probability over its clips
and crops. Classes of UCF101's splits have between 28 and 49 test videos. The mean over classes thus
differs from top-1 and is reported beside it.
"""

import collections
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from trainer.finite import finite

_MAX_SCORE = 1e30


class Split(TypedDict):
    """The accuracies of one split, in percent."""

    split: int  # number of the split, from 1
    videos: int
    top1: float
    mean_class: float  # mean over the classes that have a test video
    missing: int  # videos without a prediction, counted as wrong


class Splits(TypedDict):
    """The accuracies of several splits, one model each; their means are the benchmarks' metrics."""

    top1: float
    mean_class: float
    splits: list[Split]


def accuracy(labels: Sequence[str], predicted: Sequence[str | None], number: int = 1) -> Split:
    """Return the accuracies of a split.

    Args:
      labels: true class of each video.
      predicted: predicted class of each video; None without a prediction.
      number: number of the split.

    >>> found = accuracy(["run", "run", "run", "sit"], ["run", "run", "sit", None])
    >>> found["top1"], round(found["mean_class"], 1)
    (50.0, 33.3)
    """
    right, videos = collections.Counter[str](), collections.Counter[str]()
    for label, given in zip(labels, predicted, strict=True):
        videos[label] += 1
        right[label] += given == label
    shares = [right[label] / count for label, count in videos.items()]
    return {
        "split": number,
        "videos": videos.total(),
        "top1": 100.0 * right.total() / videos.total(),
        "mean_class": 100.0 * float(np.mean(shares)),
        "missing": sum(given is None for given in predicted),
    }


def mean_of(splits: list[Split]) -> Splits:
    """Return the mean of each accuracy over one or more splits."""
    return {
        "top1": float(np.mean([split["top1"] for split in splits])),
        "mean_class": float(np.mean([split["mean_class"] for split in splits])),
        "splits": splits,
    }


def best_class(probabilities: Float[np.ndarray, "views classes"], classes: Sequence[str]) -> str:
    """Return the class with the highest mean probability over a video's clips and crops.

    Of equally probable classes it returns the first.

    Raises:
      NonFiniteError: a probability is not finite.

    >>> best_class(np.array([[0.6, 0.4, 0.0], [0.0, 0.4, 0.6]]), ["run", "sit", "jump"])
    'sit'
    """
    probabilities = finite("probabilities", probabilities)
    greatest = np.max(np.abs(probabilities))
    if greatest > _MAX_SCORE:  # Their sum could be infinite.
        probabilities = probabilities / greatest
    return classes[int(np.argmax(np.mean(probabilities, axis=0)))]
