"""Measures candidates for the store of a search index, on generated vectors.

Each candidate builds its files and answers in a process of its own:

    python benchmarks/search_stores.py --clips 1000000 --store faiss-ivf-fp16 --folder runs/stores

prints a JSON object: seconds of building, bytes on disk, recall@10, latency, peak memory. It needs
faiss-cpu, usearch and lancedb, in an environment of their own. The figures in docs/search_store.md
are with one thread for each library: OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, RAYON_NUM_THREADS,
LANCE_CPU_THREADS and TOKIO_WORKER_THREADS were 1.
"""

import argparse
import importlib
import json
import pathlib
import resource
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WIDTH, QUERIES, TOP = 256, 200, 10
_LATENT, _CLIPS_PER_VIDEO = 48, 8

Search = Callable[[np.ndarray], np.ndarray]


def vectors(count: int, queries: int = QUERIES, width: int = WIDTH) -> tuple[np.ndarray, ...]:
    """Generate unit vectors of clips, and of queries, each near one clip.

    The clips of a video are alike, and the spectrum decays, as in an encoder's joint space.
    """
    random = np.random.default_rng(0)
    scale = (1 / np.sqrt(1 + np.arange(_LATENT))).astype(np.float32)
    basis = np.linalg.qr(random.standard_normal((width, _LATENT)))[0].T.astype(np.float32)
    clips = np.empty((count, width), np.float32)
    latents = np.empty((count, _LATENT), np.float32)
    for start in range(0, count, 100_000):
        size = min(100_000, count - start)
        videos = random.standard_normal((-(-size // _CLIPS_PER_VIDEO), _LATENT), np.float32)
        latent = np.repeat(videos, _CLIPS_PER_VIDEO, 0)[:size]
        latent = (latent + 0.6 * random.standard_normal(latent.shape, np.float32)) * scale
        latents[start : start + size] = latent
        clips[start : start + size] = _unit(
            latent @ basis + 0.03 * random.standard_normal((size, width), np.float32)
        )
    asked = latents[random.integers(0, count, queries)]
    asked = asked + 0.4 * scale * random.standard_normal(asked.shape, np.float32)
    noise = 0.03 * random.standard_normal((queries, width), np.float32)
    return clips, _unit(asked @ basis + noise)


def _unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def exact(clips: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the TOP nearest clips of each query, by brute force."""
    scores = queries @ clips.T
    best = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
    return np.take_along_axis(best, order, 1)


def _numpy(clips: np.ndarray, folder: pathlib.Path) -> Callable[[], Search]:
    np.save(folder / "clips.npy", clips.astype(np.float16))

    def opened() -> Search:
        stored = np.load(folder / "clips.npy").astype(np.float32)
        return lambda query: np.argpartition(-(stored @ query), TOP)[:TOP]

    return opened


def _faiss(kind: str) -> Callable[[np.ndarray, pathlib.Path], Callable[[], Search]]:
    def build(clips: np.ndarray, folder: pathlib.Path) -> Callable[[], Search]:
        faiss: Any = importlib.import_module("faiss")  # its classes have no types
        lists = max(1, round(4 * len(clips) ** 0.5))
        path = str(folder / "clips.faiss")
        name = kind.format(lists=lists)
        index = faiss.index_factory(clips.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        if "HNSW" not in name and "IVF" in name:
            random = np.random.default_rng(0)
            index.train(clips[random.permutation(len(clips))[: 40 * lists]])
        elif not index.is_trained:
            index.train(clips[:10_000])
        index.add(clips)
        faiss.write_index(index, path)

        def opened() -> Search:
            index = faiss.read_index(path, faiss.IO_FLAG_MMAP)
            if "IVF" in name:
                index.nprobe = 32
                # By default each query starts 32 threads that read ahead.
                faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
            elif "HNSW" in name:
                index.hnsw.efSearch = 64
            return lambda query: index.search(query[None], TOP)[1][0]

        return opened

    return build


def _usearch(clips: np.ndarray, folder: pathlib.Path) -> Callable[[], Search]:
    index_type = importlib.import_module("usearch.index").Index
    index = index_type(ndim=clips.shape[1], metric="ip", dtype="f16")
    index.add(np.arange(len(clips)), clips)
    index.save(str(folder / "clips.usearch"))

    def opened() -> Search:
        index = index_type.restore(str(folder / "clips.usearch"), view=True)
        return lambda query: index.search(query, TOP).keys

    return opened


def _lancedb(kind: str | None) -> Callable[[np.ndarray, pathlib.Path], Callable[[], Search]]:
    def build(clips: np.ndarray, folder: pathlib.Path) -> Callable[[], Search]:
        import pyarrow as pa

        lancedb = importlib.import_module("lancedb")
        width = clips.shape[1]

        def batches():
            for start in range(0, len(clips), 100_000):
                some = clips[start : start + 100_000].astype(np.float16)
                flat = pa.FixedSizeListArray.from_arrays(pa.array(some.reshape(-1)), width)
                ids = pa.array(np.arange(start, start + len(some)))
                yield pa.RecordBatch.from_arrays([ids, flat], names=["id", "vector"])

        schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float16(), width))])
        table = lancedb.connect(str(folder)).create_table("clips", batches(), schema=schema)
        if kind:
            table.create_index(metric="dot", index_type=kind, vector_column_name="vector")

        def opened() -> Search:
            table = lancedb.connect(str(folder)).open_table("clips")

            def search(query: np.ndarray) -> np.ndarray:
                asked = table.search(query.astype(np.float16)).distance_type("dot").limit(TOP)
                if kind:
                    asked = asked.nprobes(32).refine_factor(5)
                return np.array(asked.select(["id", "_distance"]).to_arrow()["id"])

            return search

        return opened

    return build


STORES = {
    "numpy-fp16": _numpy,
    "faiss-flat-fp16": _faiss("SQfp16"),
    "faiss-ivf-fp16": _faiss("IVF{lists},SQfp16"),
    "faiss-ivf-int8": _faiss("IVF{lists},SQ8"),
    "faiss-hnsw-fp16": _faiss("HNSW32_SQfp16"),
    "usearch-hnsw-fp16": _usearch,
    "lancedb-exact": _lancedb(None),
    "lancedb-ivf-pq": _lancedb("IVF_PQ"),
    "lancedb-ivf-hnsw-sq": _lancedb("IVF_HNSW_SQ"),
}


def main() -> None:
    """Measure one store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, required=True)
    parser.add_argument("--store", choices=STORES, required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.folder / f"{arguments.store}-{arguments.clips}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    clips, queries = vectors(arguments.clips)
    truth = exact(clips, queries)
    start = time.perf_counter()
    opened = STORES[arguments.store](clips, folder)
    built = time.perf_counter() - start
    del clips
    start = time.perf_counter()
    search = opened()
    open_s = time.perf_counter() - start
    answers, seconds = [], []
    for query in np.concatenate([queries[:10], queries]):
        start = time.perf_counter()
        answers.append(search(query))
        seconds.append(time.perf_counter() - start)
    pairs = zip(answers[10:], truth, strict=True)
    p50, p99 = np.percentile(np.array(seconds[10:]) * 1e3, [50, 99])
    figures = {
        "store": arguments.store,
        "clips": arguments.clips,
        "width": WIDTH,
        "build_s": round(built, 1),
        "open_s": round(open_s, 3),
        "disk_mb": round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6, 1),
        "recall_at_10": round(float(np.mean([np.isin(a, t).sum() / TOP for a, t in pairs])), 4),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figures), flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
