"""Numbers by chance that follow from a key alone, and are the same on every machine."""

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

T = TypeVar("T")
Split = Literal["train", "test"]

# What numbers are drawn for, so that those for different purposes are independent.
SPLIT_KEYS: dict[Split, int] = {"train": 1, "test": 2}
FAMILIES_KEY = 3
ORDER_KEY = 4
ACTIONS_KEY = 5
UNTRIMMED_KEY = 6
SENTENCES_KEY = 7
QUESTIONS_KEY = 8
DETECTIONS_KEY = 9


def generator(*key: int) -> np.random.Generator:
    """A source of numbers that are those of the key alone."""
    return np.random.default_rng(np.random.SeedSequence(key))


def choice(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of some options, each as likely as another.

    >>> choice(generator(0), ("a", "b", "c"))
    'c'
    """
    return options[int(rng.integers(len(options)))]


def exact(value: float) -> float:
    """Rounds to 1/256, so that the last bit of a machine's sine does not reach the pixels.

    >>> exact(0.1)
    0.1015625
    """
    return round(value * 256) / 256
