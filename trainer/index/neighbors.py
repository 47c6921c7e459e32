"""Nearest neighbors among an index's clip vectors: exact with NumPy, approximate with FAISS.

Both rank by the same scores: cosines in float32, rounded to `DECIMALS` decimals. Equal scores rank
by row. An approximate search proposes candidates, whose scores are then computed exactly.
"""

import importlib.util
import pathlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from trainer.data.folder import replacing
from trainer.errors import UserError
from trainer.index.quantize import Dtype, dequantize

EXACT_BELOW = 1_000_000  # clips, from which on an approximate index is built
DECIMALS = 6

_AT_ONCE = 1 << 16  # vectors converted to float32 at once
_TRAINING = 40  # training vectors per list: FAISS's minimum for a good clustering is 39
_RECALL = 0.97  # at least, among the sampled queries; the promise is 0.95
_TOP = 10
_CANDIDATES = 4  # proposed per wanted clip
_LEAST_CANDIDATES = 64


class MissingPackageError(UserError, ImportError):
    """A package that a large index needs is not installed."""


class Approximation(NamedTuple):
    """How an approximate index is searched, and how well."""

    lists: int
    probes: int  # lists that a query scans
    recall_at_10: float  # share of the exact 10 nearest that are found, over the queries
    queries: int


def check_faiss() -> None:
    """Check that FAISS is installed.

    Raises:
      MissingPackageError: it is not.
    """
    if importlib.util.find_spec("faiss") is None:
        raise MissingPackageError(
            f"an index of {EXACT_BELOW:,} clips or more requires the package faiss-cpu: "
            "pip install 'svilm[search]'"
        )


def _faiss() -> Any:
    """Return the FAISS library, which wraps its classes without types."""
    import faiss

    return faiss


class Neighbors:
    """Clip vectors to search, safe to use from several threads."""

    def __init__(
        self,
        stored: dict[str, np.ndarray],
        faiss_file: pathlib.Path | None = None,
        probes: int = 0,
    ) -> None:
        """Initialize from the tensors that store the vectors, as `quantize` named them "clip".

        Args:
          stored: the tensors, which may be mapped into memory.
          faiss_file: an approximate index of them; None searches exactly.
          probes: number of lists that an approximate search scans.
        """
        self._stored = stored
        self._faiss_file, self._probes = faiss_file, probes
        self._lock = threading.Lock()
        self._whole: np.ndarray | None = None
        self._faiss: Any = None

    def __len__(self) -> int:
        return len(self._stored["clip"])

    def vectors(self, rows: Sequence[int] | np.ndarray | slice) -> Float[np.ndarray, "n E"]:
        """Return the vectors of some rows, in float32."""
        return dequantize("clip", {name: array[rows] for name, array in self._stored.items()})

    def nearest(
        self,
        query: Float[np.ndarray, " E"],
        count: int,
        among: Bool[np.ndarray, " n"] | None = None,
    ) -> tuple[Int64[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Return the rows most similar to a unit vector, best first, and their cosines.

        Args:
          query: the vector.
          count: maximum number of rows.
          among: True at rows to consider; None considers all.
        """
        if self._faiss_file is not None:
            few = among is not None and int(among.sum()) <= max(_AT_ONCE, count)
            if not few and count < len(self):
                return self._propose(query, count, among)
            rows = np.arange(len(self)) if among is None else np.flatnonzero(among)
            return _best(rows, self._scores(query, rows), count)
        scores = self._all() @ query
        if among is None:
            return _best(None, scores, count)
        rows = np.flatnonzero(among)
        return _best(rows, scores[rows], count)

    def _all(self) -> np.ndarray:
        with self._lock:
            if self._whole is None:
                whole = np.empty(self._stored["clip"].shape, np.float32)
                for part in _parts(len(self)):
                    whole[part] = self.vectors(part)
                self._whole = whole
        return self._whole

    def _scores(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        parts = [self.vectors(rows[part]) @ query for part in _parts(len(rows))]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _propose(
        self, query: np.ndarray, count: int, among: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        faiss = _faiss()
        with self._lock:
            if self._faiss is None:
                self._faiss = faiss.read_index(str(self._faiss_file), faiss.IO_FLAG_MMAP)
                # By default each query starts 32 threads that read ahead, which costs more than
                # the query itself once the pages are in memory.
                faiss.downcast_InvertedLists(self._faiss.invlists).prefetch_nthread = 0
        wanted = min(len(self), max(_CANDIDATES * count, _LEAST_CANDIDATES))
        options = {}
        if among is not None:
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))
        settings = faiss.SearchParametersIVF(nprobe=self._probes, **options)
        _, rows = self._faiss.search(query[None], wanted, params=settings)
        rows = np.sort(rows[0][rows[0] >= 0])  # −1 where the lists have no more
        return _best(rows, self._scores(query, rows), count)


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _AT_ONCE):
        yield slice(start, min(start + _AT_ONCE, count))


def _best(rows: np.ndarray | None, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows with the best rounded scores, in ascending order of rows if equal."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        kept = np.flatnonzero(scores >= least - 10.0**-DECIMALS)  # ties of the last one, rounded
    else:
        kept = np.arange(len(scores))
    rounded = scores[kept].astype(np.float64).round(DECIMALS)
    order = np.argsort(-rounded, kind="stable")[:count]
    chosen = kept[order]
    return chosen if rows is None else rows[chosen], rounded[order]


def build_faiss(
    stored: dict[str, np.ndarray],
    dtype: Dtype,
    queries: Float[np.ndarray, "q E"],
    out: pathlib.Path,
) -> Approximation:
    """Write an approximate index of clip vectors, and choose how many lists a query scans.

    The same vectors always give the same file.

    Args:
      stored: the vectors' tensors.
      dtype: type of the vectors' numbers in the index.
      queries: unit vectors to measure the recall with.
      out: file to write.
    """
    faiss = _faiss()
    vectors = Neighbors(stored)
    count, width = stored["clip"].shape
    lists = max(1, min(round(4 * count**0.5), count // _TRAINING))
    coded = {"float16": "SQfp16", "int8": "SQ8"}[dtype]
    index = faiss.index_factory(width, f"IVF{lists},{coded}", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).choice(count, min(count, _TRAINING * lists), replace=False)
    index.train(vectors.vectors(np.sort(sample)))
    for part in _parts(count):
        index.add(vectors.vectors(part))
    with replacing(out) as unfinished:
        faiss.write_index(index, str(unfinished))
    del index
    truth = _exact(vectors, queries)
    probes = 1
    while True:
        found = Neighbors(stored, out, probes)
        hits = [
            np.isin(found.nearest(query, _TOP)[0], exact).sum() / max(1, len(exact))
            for query, exact in zip(queries, truth, strict=True)
        ]
        recall = float(np.mean(hits))
        if recall >= _RECALL or probes == lists:
            break
        probes = min(2 * probes, lists)
    return Approximation(lists, probes, round(recall, 4), len(queries))


def _exact(vectors: Neighbors, queries: np.ndarray) -> list[np.ndarray]:
    """Return the nearest rows of each query, reading the vectors once."""
    found = [(np.zeros(0, np.int64), np.zeros(0)) for _ in queries]
    for part in _parts(len(vectors)):
        of_part = queries @ vectors.vectors(part).T
        for place, scores in enumerate(of_part):
            rows, best = _best(np.arange(part.start, part.stop), scores, _TOP)
            rows = np.concatenate([found[place][0], rows])
            best = np.concatenate([found[place][1], best])
            found[place] = _best(rows, best, _TOP)
    return [rows for rows, _ in found]
