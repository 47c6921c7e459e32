"""Action recognition's metrics: top-1 accuracy of a split, and the mean over splits.

A video is of one class. Clips and crops of one video are averaged in their probabilities before
the highest one is taken. Classes of UCF101's splits have between 28 and 49 test videos, so that
the mean over classes differs from top-1; it stands beside it.
"""

import collections
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from trainer.finite import finite


class Split(TypedDict):
    """Accuracies of one split, in percent."""

    split: int  # its number, from 1
    videos: int
    top1: float
    mean_class: float  # over the classes that have a test video
    missing: int  # videos without a prediction, counted as wrong


class Splits(TypedDict):
    """Accuracies of several splits, a model each: their means are the benchmarks' figures."""

    top1: float
    mean_class: float
    splits: list[Split]


def accuracy(labels: Sequence[str], predicted: Sequence[str | None], number: int = 1) -> Split:
    """The figures of a split.

    Args:
      labels: the true class of each video.
      predicted: the given one; None where there is none.
      number: the split's.

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
    """The mean of each figure over splits, of which there is one or more."""
    return {
        "top1": float(np.mean([split["top1"] for split in splits])),
        "mean_class": float(np.mean([split["mean_class"] for split in splits])),
        "splits": splits,
    }


def best_class(probabilities: Float[np.ndarray, "views classes"], classes: Sequence[str]) -> str:
    """The class that is most probable on average over a video's clips and crops.

    Of equal ones it is the first.

    Raises:
      NonFiniteError: a probability is not finite.

    >>> best_class(np.array([[0.6, 0.4, 0.0], [0.0, 0.4, 0.6]]), ["run", "sit", "jump"])
    'sit'
    """
    probabilities = finite("probabilities", probabilities)
    return classes[int(np.argmax(np.mean(probabilities, axis=0)))]
