"""Random numbers that depend only on a key, and are equal on every machine."""

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

T = TypeVar("T")
Split = Literal["train", "test"]

# Keys for the purposes of draws, which make draws for different purposes independent.
SPLIT_KEYS: dict[Split, int] = {"train": 1, "test": 2}
FAMILIES_KEY = 3
ORDER_KEY = 4
ACTIONS_KEY = 5
UNTRIMMED_KEY = 6
SENTENCES_KEY = 7
QUESTIONS_KEY = 8
DETECTIONS_KEY = 9
MOMENTS_KEY = 10


def generator(*key: int) -> np.random.Generator:
    """Return a random generator that depends only on the key."""
    return np.random.default_rng(np.random.SeedSequence(key))


def choice(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return a uniformly drawn option.

    >>> choice(generator(0), ("a", "b", "c"))
    'c'
    """
    return options[int(rng.integers(len(options)))]


def exact(value: float) -> float:
    """Round to 1/256, so that differences between machines' sines do not affect the pixels.

    >>> exact(0.1)
    0.1015625
    """
    return round(value * 256) / 256
