"""Measures an index: build rate, queries per second, latency, recall, memory.

The vectors are generated (benchmarks/search_stores.py): clips of a video are alike. Each query is
answered in turn by the index, by NumPy's brute force and by FAISS called plainly, so that all three
meet the same machine. FAISS reads the file of an approximate index, and searches exactly, by
IndexFlatIP, beside an exact index. An index in --folder is queried again, and not built. Written to
benchmarks/results/search.json:

  encoder_clips_per_s   preset tiny with random parameters, 32 random clips at once
  index_clips_per_s     writing of shards, columns and, from a million clips on, FAISS's file,
                        of vectors that are there already
  recall_at_10          of queries that are not in the index, against an exact search
  p50_ms, p99_ms        of `Index.search` with ten results, their texts included
  over_numpy, over_faiss  median, over the queries, of the latency over NumPy's and over FAISS's
  cpu_ms, faiss_cpu_ms  median CPU time, which other processes on the machine change little
  load                  mean number of runnable processes in the last 5 minutes
  peak_mb               peak memory of a process that opens the index and answers 100 queries

One thread each, so that no library waits for its threads on a busy machine:

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python benchmarks/search.py --clips 10000 1000000 --folder runs/indices
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from search_stores import WIDTH, exact, vectors
from trainer_figures import keep

from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.data.tokenizer import Tokenizer
from trainer.distributed.mesh import one_device
from trainer.index import build, files
from trainer.index.index import Index
from trainer.index.neighbors import EXACT_BELOW
from trainer.index.quantize import quantize
from trainer.inference import shards
from trainer.inference.encoder import Encoder
from trainer.method.train_step import init_state
from trainer.runs.checkpoint import Loaded

_SHARD, _ASKED = 8192, 100


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="keeps the indices")
    parser.add_argument("--ask", action="store_true", help="only query the index in --folder")
    arguments = parser.parse_args()
    if arguments.ask:
        ask(arguments.folder)
        return
    tokenizer = Tokenizer.train(["a red ring"], size=60)
    settings = [f"text.vocabulary={len(tokenizer.pieces)}", f"joint_width={WIDTH}"]
    config = override(PRESETS["tiny"], settings)
    run = Loaded(config, tokenizer, init_state(config, one_device()).params, 0, False)
    rate: dict[str, Any] = {"encoder_clips_per_s": encoder_rate(run)}
    keep("encoder", rate | _load(), "search.json")
    for count in arguments.clips:
        clips, queries = vectors(count)
        truth = exact(clips, queries)
        folder = arguments.folder / str(count)
        if not files.is_index(folder):
            rate = {"index_clips_per_s": count / _timed(lambda: write(run, clips, folder))}  # noqa: B023
            keep(f"building, {count} clips", rate | _load(), "search.json")
        del clips
        keep(f"queries, {count} clips", measure(folder, queries, truth) | _load(), "search.json")


def _load() -> dict[str, Any]:
    return {"width": WIDTH, "load": os.getloadavg()[1]}


def encoder_rate(run: Loaded) -> float:
    """Return the clips per second of the encoder alone."""
    encoder, video = Encoder(run.config, run.tokenizer, run.params), run.config.video
    shape = (32, video.frames, video.resolution, video.resolution, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    seconds = [_timed(lambda: encoder.clips(frames)) for _ in range(6)]
    return len(frames) / min(seconds[1:])


def measure(folder: pathlib.Path, queries: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Query an index of generated vectors, NumPy and FAISS in turn."""
    index = Index.open(folder)
    stored = index.clips(range(len(index)))
    search = index.about["search"]
    if search["kind"] == "ivf":
        path = folder / index.about["data"] / files.FAISS
        plain: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        plain.nprobe = search["probes"]
        # The index sets this, too: by default each query starts 32 threads that read ahead.
        lists: Any = faiss.downcast_InvertedLists(plain.invlists)
        lists.prefetch_nthread = 0
    else:
        plain = faiss.IndexFlatIP(WIDTH)
        plain.add(stored)
    took: dict[str, list[float]] = {"index": [], "numpy": [], "faiss": []}
    cpu: dict[str, list[float]] = {"index": [], "faiss": []}
    found = []
    for query in np.concatenate([queries[:10], queries]):
        start = time.perf_counter(), time.process_time()
        found.append([hit.row for hit in index.search(like=query, top=10)])
        took["index"].append(time.perf_counter() - start[0])
        cpu["index"].append(time.process_time() - start[1])
        took["numpy"].append(_timed(lambda query=query: _brute_force(stored, query)))
        start = time.perf_counter(), time.process_time()
        plain.search(query[None], 10)
        took["faiss"].append(time.perf_counter() - start[0])
        cpu["faiss"].append(time.process_time() - start[1])
    ms = {name: np.array(values[10:]) * 1e3 for name, values in took.items()}
    pairs = zip(found[10:], truth, strict=True)
    return {
        "disk_mb": sum(one["bytes"] for one in index.about["files"].values()) / 1e6,
        "recall_at_10": float(np.mean([np.isin(rows, best).mean() for rows, best in pairs])),
        "p50_ms": float(np.percentile(ms["index"], 50)),
        "p99_ms": float(np.percentile(ms["index"], 99)),
        "queries_per_s": 1e3 / float(ms["index"].mean()),
        "numpy_p50_ms": float(np.percentile(ms["numpy"], 50)),
        "faiss_p50_ms": float(np.percentile(ms["faiss"], 50)),
        "over_numpy": float(np.median(ms["index"] / ms["numpy"])),
        "over_faiss": float(np.median(ms["index"] / ms["faiss"])),
        "cpu_ms": float(np.median(cpu["index"][10:])) * 1e3,
        "faiss_cpu_ms": float(np.median(cpu["faiss"][10:])) * 1e3,
        "peak_mb": _peak_mb(folder),
        "search": search,
    }


def write(run: Loaded, clips: np.ndarray, out: pathlib.Path) -> None:
    """Write an index of vectors, with vectors of groups and windows of one number each."""
    made_from = {
        **shards.model_identity(run),
        **{"snapshots": [], "dtype": "float16", "shard_clips": _SHARD},
    }
    total = -(-len(clips) // _SHARD)
    names = [f"features-000-{shard:05d}-of-{total:05d}.safetensors" for shard in range(total)]
    data = out / files.data_name(made_from)
    data.mkdir(parents=True)

    def make(missing: list[str]) -> Iterator[shards.Shard]:
        for shard, name in enumerate(missing):
            first = shard * _SHARD
            some = clips[first : first + _SHARD]
            rest = np.zeros((len(some), 1, 1), np.float16)
            tensors = quantize("clip", some, "float16") | {"groups": rest, "windows": rest}
            yield shards.Shard(name, tensors, [_row(first + place) for place in range(len(some))])

    shards.write(data, names, made_from, make)
    snapshots: list[Any] = [_Snapshot()]
    build.complete(run, snapshots, out, made_from, names, "float16", EXACT_BELOW)


class _Snapshot:
    """The parts of a snapshot that an index lists."""

    folder, manifest_sha256 = "/generated", "0" * 64

    class manifest:  # noqa: N801
        """Its data set."""

        dataset = "generated"


def _row(number: int) -> dict[str, Any]:
    video = f"video-{number // 8:07d}"
    return {
        **{"clip_id": f"{video}_{number}_{number + 1}_5b41c1ab", "video_id": video},
        **{"start_us": number, "end_us": number + 5_000_000, "record": number},
        **{"caption": "", "nouns": [], "labels": ["rises" if number % 2 else "falls"]},
    }


def _brute_force(stored: np.ndarray, query: np.ndarray) -> np.ndarray:
    scores = stored @ query
    best = np.argpartition(-scores, 10)[:10]
    return best[np.argsort(-scores[best])]


def ask(folder: pathlib.Path) -> None:
    """Print the peak memory of a process that answers queries, in MB."""
    index, random = Index.open(folder), np.random.default_rng(1)
    for _ in range(_ASKED):
        index.search(like=random.standard_normal(WIDTH).astype(np.float32), top=10)
    # ru_maxrss would have the parent's peak, too.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    print(int(peak) // 1024)


def _peak_mb(folder: pathlib.Path) -> int:
    command = [sys.executable, __file__, "--ask", "--folder", folder]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
