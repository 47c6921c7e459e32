import faiss
import numpy as np
import pytest

from trainer.index import neighbors
from trainer.index.neighbors import Neighbors, build_faiss
from trainer.index.quantize import quantize


def unit(random, *shape):
    vectors = random.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def brute_force(stored, query, count, among=None):
    """Rank with float64 numbers and Python's sort."""
    vectors = Neighbors(stored).vectors(slice(None)).astype(np.float64)
    rows = range(len(vectors)) if among is None else np.flatnonzero(among).tolist()
    scored = [(-round(float(vectors[row] @ query.astype(np.float64)), 5), row) for row in rows]
    return [row for _, row in sorted(scored)[:count]], [-s for s, _ in sorted(scored)[:count]]


@pytest.fixture(scope="module", params=["float16", "int8"])
def stored(request):
    return quantize("clip", unit(np.random.default_rng(0), 3000, 16), request.param)


@pytest.fixture(scope="module")
def large(stored, tmp_path_factory):
    """Returns (neighbors, what was measured) of an approximate index."""
    out = tmp_path_factory.mktemp("index") / "clip.faiss"
    dtype = "int8" if "clip_scale" in stored else "float16"
    measured = build_faiss(stored, dtype, unit(np.random.default_rng(9), 64, 16), out)
    return Neighbors(stored, out, measured.probes), measured


def test_an_exact_search_agrees_with_brute_force(stored):
    near, random = Neighbors(stored), np.random.default_rng(1)
    for query in unit(random, 5, 16):
        for among in (None, random.random(3000) < 0.3, np.zeros(3000, bool)):
            for count in (1, 7, 5000):
                rows, scores = near.nearest(query, count, among)
                expected, best = brute_force(stored, query, count, among)
                assert scores.tolist() == pytest.approx(best, abs=1e-5)
                assert len(set(rows.tolist()) & set(expected)) >= len(expected) - 1
                assert (np.diff(scores) <= 0).all()


def test_equal_vectors_rank_by_row_however_many_are_asked_for():
    vectors = np.repeat(unit(np.random.default_rng(2), 5, 16), 40, axis=0)
    near = Neighbors(quantize("clip", vectors, "float16"))
    rows, scores = near.nearest(vectors[90], 60)
    assert rows[:40].tolist() == list(range(80, 120))
    assert len(set(scores[:40].tolist())) == 1
    for count in range(1, 60):
        assert near.nearest(vectors[90], count)[0].tolist() == rows[:count].tolist()


def test_an_approximate_search_has_the_recall_that_was_measured(stored, large):
    near, measured = large
    assert measured.recall_at_10 >= 0.95
    assert measured.queries == 64
    exact, shares = Neighbors(stored), []
    for query in unit(np.random.default_rng(3), 50, 16):
        truth, best = exact.nearest(query, 10)
        rows, scores = near.nearest(query, 10)
        shares.append(np.isin(rows, truth).mean())
        known = dict(zip(truth.tolist(), best.tolist(), strict=True))
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            assert known.get(row, score) == pytest.approx(score, abs=2e-6)
    assert np.mean(shares) >= 0.9


def test_an_approximate_search_starts_no_threads(large):
    """FAISS's prefetching starts 32 threads per query, which takes longer than the query itself."""
    near, (query,) = large[0], unit(np.random.default_rng(6), 1, 16)
    near.nearest(query, 10)
    lists = faiss.downcast_InvertedLists(near._faiss.invlists)
    assert isinstance(lists, faiss.OnDiskInvertedLists)
    assert lists.prefetch_nthread == 0


def test_filters_of_an_approximate_search(stored, large, monkeypatch):
    near, _ = large
    among = np.random.default_rng(4).random(3000) < 0.5
    (query,) = unit(np.random.default_rng(5), 1, 16)
    truth, _ = Neighbors(stored).nearest(query, 10, among)
    assert near.nearest(query, 10, among)[0].tolist() == truth.tolist()  # few rows: exact
    monkeypatch.setattr(neighbors, "_AT_ONCE", 100)
    rows, _ = near.nearest(query, 10, among)
    assert among[rows].all()
    assert np.isin(rows, truth).sum() >= 8
    assert near.nearest(query, 10, np.zeros(3000, bool))[0].tolist() == []
    assert len(near.nearest(query, 3000)[0]) == 3000


def test_a_faiss_file_is_a_function_of_the_vectors(stored, large, tmp_path):
    dtype = "int8" if "clip_scale" in stored else "float16"
    queries = unit(np.random.default_rng(9), 64, 16)
    assert build_faiss(stored, dtype, queries, tmp_path / "again.faiss") == large[1]
    assert (tmp_path / "again.faiss").read_bytes() == large[0]._faiss_file.read_bytes()
