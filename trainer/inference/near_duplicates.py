"""Near-duplicate clips by their embeddings: SemDeDup (Abbas et al. 2023, arXiv:2303.09540).

Spherical k-means divides the embeddings into clusters. Within a cluster the cosine of each pair is
computed, exactly. Pairs in different clusters are not compared. Of near-duplicates the clip with
the lowest cosine to its cluster's centroid is kept, as in the paper: clips are ranked by this
cosine, ascending, and a clip is a duplicate if its cosine with one that is ranked before exceeds
the threshold.

Memory: 24 bytes per clip, the sample that k-means is fitted to, and blocks of fixed size. All
follows from the seed. It is NumPy: scikit-learn's k-means would add 150 MB of packages for the 30
lines below, and is not spherical.
"""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32, Int64

from trainer.data.types import Progress
from trainer.errors import UserError

# Clips per cluster by default. The paper has 8,800 (LAION-440M in 50,000 clusters). More clusters
# take less time and miss more pairs. Up to this many clips are one cluster, so no pair is missed.
CLUSTER_CLIPS = 8192
_SAMPLE = 64  # clips per cluster to fit the centroids to
_ROUNDS = 10  # of k-means
_BLOCK = 4096  # clips compared with as many others at once
_COSINES = 2**25  # cosines with centroids at once


class NearDuplicatesError(UserError, ValueError):
    """Embeddings that cannot be compared."""


@runtime_checkable
class Rows(Protocol):
    """One row per record."""

    def __len__(self) -> int: ...

    def at(self, records: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n *d"]:
        """Return the rows of some records."""
        ...


class Nearest(NamedTuple):
    """The most similar clip of each clip, among those of its cluster that are ranked before it."""

    cosine: Float32[np.ndarray, " n"]  # −1 for the first of a cluster
    record: Int64[np.ndarray, " n"]  # −1 likewise
    cluster: Int32[np.ndarray, " n"]
    clusters: int

    def duplicates(self, threshold: float) -> Int64[np.ndarray, " m"]:
        """Return the records whose cosine exceeds a threshold."""
        return np.flatnonzero(self.cosine > np.float32(threshold))

    def duplicate_of(self, threshold: float) -> Int64[np.ndarray, " n"]:
        """Return the record that each clip duplicates; −1 for clips to keep."""
        return np.where(self.cosine > np.float32(threshold), self.record, np.int64(-1))


class ColumnRows:
    """The vectors of a column, as rows."""

    def __init__(self, values: Float32[np.ndarray, "n d"]) -> None:
        """Args: values: a vector per record."""
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def at(self, records: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        """Return the rows of some records."""
        return self.values[records]


def cluster_count(clips: int) -> int:
    """Return the default number of clusters: one per 8,192 clips.

    >>> cluster_count(8192), cluster_count(8193), cluster_count(136_000_000)
    (1, 2, 16602)
    """
    return math.ceil(clips / CLUSTER_CLIPS)


def find_nearest(rows: Rows, clusters: int, seed: int, progress: Progress) -> Nearest:
    """Return the most similar clip of each clip within its cluster.

    Args:
      rows: the embeddings, of any length and shape.
      clusters: number of clusters, at most the number of rows.
      seed: seed of the sample and of the first centroids.
      progress: called with the clips done and in total, once for clusters and once for pairs.

    Raises:
      NearDuplicatesError: a row is zero or not finite, or there are fewer rows than clusters.
    """
    count = len(rows)
    if not 1 <= clusters <= count:
        raise NearDuplicatesError(
            f"{count:,} clips cannot be divided into {clusters:,} clusters: give a number from 1 "
            "to that of the clips"
        )
    centroids = _fitted(rows, clusters, np.random.default_rng(seed))
    cluster, central = np.empty(count, np.int32), np.empty(count, np.float32)
    for first in range(0, count, _BLOCK):
        some = np.arange(first, min(first + _BLOCK, count))
        cluster[some], central[some] = _closest(_unit(rows, some), centroids)
        progress(len(some) + first, 2 * count)
    # By cluster, then by cosine to its centroid, then by number.
    ranked = np.lexsort((central, cluster))
    cosine, nearest = np.full(count, -1, np.float32), np.full(count, -1, np.int64)
    ends = np.searchsorted(cluster[ranked], np.arange(clusters), side="right").tolist()
    for begin, end in zip([0, *ends], ends, strict=False):
        _compare(rows, ranked[begin:end], cosine, nearest)
        progress(count + end, 2 * count)
    return Nearest(cosine, nearest, cluster, clusters)


def _fitted(rows: Rows, clusters: int, rng: np.random.Generator) -> Float32[np.ndarray, "k d"]:
    """Return the centroids of k-means on a sample of the rows, L2-normalized.

    A centroid that no row is closest to stays where it is.
    """
    count = min(len(rows), _SAMPLE * clusters)
    points = _unit(rows, np.sort(rng.choice(len(rows), count, replace=False)))
    centroids = points[np.sort(rng.choice(count, clusters, replace=False))]
    if clusters == 1:
        return _normalized(points.sum(axis=0, keepdims=True), centroids)
    for _ in range(_ROUNDS):
        cluster, _ = _closest(points, centroids)
        order = np.argsort(cluster, kind="stable")
        present, begins = np.unique(cluster[order], return_index=True)
        sums = np.add.reduceat(points[order], begins, axis=0)
        centroids[present] = _normalized(sums, centroids[present])
    return centroids


def _normalized(
    sums: Float32[np.ndarray, "k d"], otherwise: Float32[np.ndarray, "k d"]
) -> Float32[np.ndarray, "k d"]:
    """Return rows of length 1; those of `otherwise` for rows of length 0."""
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 0, sums / np.maximum(lengths, np.float32(1e-30)), otherwise)


def _closest(
    points: Float32[np.ndarray, "n d"], centroids: Float32[np.ndarray, "k d"]
) -> tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Return the closest centroid of each point, and its cosine."""
    labels, cosines = np.empty(len(points), np.int32), np.empty(len(points), np.float32)
    at_once = max(_COSINES // len(centroids), 1)
    for first in range(0, len(points), at_once):
        some = slice(first, first + at_once)
        found = points[some] @ centroids.T
        labels[some], cosines[some] = found.argmax(axis=1), found.max(axis=1)
    return labels, cosines


def _compare(
    rows: Rows,
    ranked: Int64[np.ndarray, " m"],
    cosine: Float32[np.ndarray, " n"],
    nearest: Int64[np.ndarray, " n"],
) -> None:
    """Fill in the clips of a cluster, given in the order of their ranks."""
    for first in range(0, len(ranked), _BLOCK):
        mine = ranked[first : first + _BLOCK]
        points = _unit(rows, mine)
        for before in range(0, first + 1, _BLOCK):
            others = ranked[before : before + _BLOCK]
            found = points @ (points if before == first else _unit(rows, others)).T
            if before == first:
                found[np.triu(np.ones(found.shape, bool))] = -1  # only those ranked before
            best = found.argmax(axis=1)
            cosines = np.minimum(found[np.arange(len(mine)), best], np.float32(1))
            better = cosines > cosine[mine]
            cosine[mine[better]], nearest[mine[better]] = cosines[better], others[best[better]]


def _unit(rows: Rows, records: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
    """Return rows of length 1."""
    found = rows.at(records).reshape(len(records), -1).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
    wrong = ~((lengths > 0) & (lengths < np.inf)).ravel()
    if wrong.any():
        record = int(records[np.flatnonzero(wrong)[0]])
        raise NearDuplicatesError(
            f"the embedding of record {record} has length {lengths[wrong][0, 0]:g}, so it has no "
            "cosine: correct the features"
        )
    return found / lengths


def some_pairs(found: Nearest, threshold: float, count: int) -> Int64[np.ndarray, " m"]:
    """Return some duplicates, evenly from the least similar to the most similar."""
    records = found.duplicates(threshold)
    records = records[np.argsort(found.cosine[records], kind="stable")]
    places = np.linspace(0, len(records) - 1, min(count, len(records)))
    return records[np.round(places).astype(np.int64)]


def describe(found: Nearest, threshold: float) -> list[dict[str, Any]]:
    """Return how many clips would be removed at several thresholds, `threshold` among them."""
    usual = (0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.99)
    every = len(found.cosine)
    counts = {at: len(found.duplicates(at)) for at in sorted({*usual, threshold})}
    return [{"threshold": at, "removed": count, "of": every} for at, count in counts.items()]
