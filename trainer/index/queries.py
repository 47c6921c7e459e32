"""Queries of an index: their direction in the joint space, and filters of clips."""

import dataclasses
import math
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Float

from trainer.errors import UserError
from trainer.finite import finite
from trainer.index.files import Columns

# Length of a difference below which two queries are the same but for rounding.
_CANCELLED = 1e-3


class QueryError(UserError, ValueError):
    """A query that cannot be answered."""


@dataclasses.dataclass(frozen=True)
class Filters:
    """Conditions on clips. Each field that is given must hold; of several values, any one."""

    datasets: tuple[str, ...] = ()  # names of data sets, as in the snapshots' manifests
    videos: tuple[str, ...] = ()  # ids of videos
    labels: tuple[str, ...] = ()  # labels, of which a clip has at least one
    min_us: int = 0  # length of the clip in microseconds, inclusive
    max_us: int | None = None
    min_score: float = -math.inf  # cosine, inclusive

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
          QueryError: the score is not a number, or no length is allowed.
        """
        if math.isnan(self.min_score):
            raise QueryError("the minimum score is not a number: give one from -1 to 1")
        if self.max_us is not None and self.max_us < self.min_us:
            raise QueryError(
                f"no clip is at least {self.min_us / 1e6:g} s and at most {self.max_us / 1e6:g} s "
                "long: give a larger maximum"
            )


def direction(
    plus: Float[np.ndarray, "p E"], minus: Float[np.ndarray, "m E"]
) -> Float[np.ndarray, " E"]:
    """Return the unit vector of a query: the mean of `plus` minus the mean of `minus`.

    Clips then rank by their mean cosine with `plus` minus their mean cosine with `minus`.

    Raises:
      QueryError: `plus` is empty, or the vectors cancel out.
      NonFiniteError: a vector is not finite.

    >>> direction(np.array([[1.0, 0.0]]), np.zeros((0, 2))).tolist()
    [1.0, 0.0]
    >>> direction(np.eye(2), np.array([[0.0, 0.5]])).tolist()
    [1.0, 0.0]
    """
    if not len(plus):
        raise QueryError("the query is empty: give a text, a noun, a clip or a video")
    vector = finite("query", plus).mean(axis=0)
    if len(minus):
        vector = vector - finite("subtracted query", minus).mean(axis=0)
    length = float(np.linalg.norm(vector))
    if length < _CANCELLED:
        raise QueryError("the query and what it subtracts are the same: give other texts")
    return vector / length


def matching(
    filters: Filters, columns: Columns, datasets: Sequence[str]
) -> Bool[np.ndarray, " n"] | None:
    """Return which clips a filter lets through; None for all of them.

    Args:
      filters: the conditions, of which the score is not checked here.
      columns: the columns of the index.
      datasets: the data set of each snapshot.

    Raises:
      QueryError: the index has no such data set, video or label.
    """
    masks = []
    if filters.datasets:
        _check_known("data set", filters.datasets, set(datasets))
        chosen = [place for place, name in enumerate(datasets) if name in filters.datasets]
        masks.append(np.isin(columns["snapshot"], chosen))
    if filters.videos:
        _check_known("video", filters.videos, columns.video_codes.keys())
        chosen = [columns.video_codes[name] for name in filters.videos]
        masks.append(np.isin(columns["video"], chosen))
    if filters.labels:
        _check_known("label", filters.labels, set(columns.labels))
        chosen = [code for code, name in enumerate(columns.labels) if name in filters.labels]
        masks.append(_labelled(columns, chosen))
    if filters.min_us > 0 or filters.max_us is not None:
        length = columns["end_us"] - columns["start_us"]
        masks.append(length >= filters.min_us)
        if filters.max_us is not None:
            masks.append(length <= filters.max_us)
    return np.logical_and.reduce(masks) if masks else None


def _labelled(columns: Columns, codes: Sequence[int]) -> Bool[np.ndarray, " n"]:
    first = np.asarray(columns["first_label"])
    places = np.flatnonzero(np.isin(columns["labels"], codes))
    mask = np.zeros(len(first) - 1, bool)
    mask[np.searchsorted(first, places, side="right") - 1] = True
    return mask


def _check_known(kind: str, wanted: Sequence[str], known: Collection[str]) -> None:
    if missing := [name for name in wanted if name not in known]:
        some = ", ".join(map(repr, sorted(known)[:5]))
        raise QueryError(f"the index has no {kind} {missing[0]!r}: it has {some or 'none'}")
