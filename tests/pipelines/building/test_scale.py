"""Memory and time per row do not depend on the number of rows."""

import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines.building import graph, row_spill
from pipelines.building.shard import ShardOutcome
from pipelines.planning import plan
from pipelines.snapshots import plan_summary
from protos.v1.manifest_pb2 import AnnotationFile, BuildConfig, ShardEntry

FEW, MANY = 20_000, 80_000
SHARDS = 500
CAPTION = "somebody shows how a rather old bicycle is taken apart"


class CountRows(beam.DoFn):
    """A stand-in for decoding: a shard whose videos are all missing."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, element):
        shard, places = element
        rows = sum(1 for _ in row_spill.requests(self._folder, places))
        yield ShardOutcome(shard, rows, {"video_missing": rows}, ShardEntry(), "", False)


def planned(folder: str, rows: int) -> tuple[int, float]:
    """Plan a build with 10 % rejects; return peak memory and CPU seconds."""
    path, out = os.path.join(folder, f"{rows}.csv"), os.path.join(folder, f"{rows}")
    os.makedirs(out)
    with open(path, "w") as file:
        for row in range(rows):
            end = "soon" if row % 10 == 0 else 9_000_000
            file.write(f"{row // 2:011d},{row % 2},{end},{CAPTION} {row}\n")
    files = (AnnotationFile(name=f"{rows}.csv", bytes=os.path.getsize(path)),)
    config = BuildConfig(frames_per_clip=4, short_side=24, num_shards=SHARDS)
    of = plan.Plan("videocc", (path,), files, "videos", out, "1.0.0", config, {}, "", "", 1.0)
    began = time.process_time()
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
        graph.graph(pipeline, of, CountRows(out))
    seconds = time.process_time() - began
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    return int(peak[1]) * 1024, seconds


def few_then_many(folder: str) -> list[tuple[int, float]]:
    return [planned(folder, rows) for rows in (1, FEW, MANY)]


def test_planning_cost_per_row_is_constant(tmp_path):
    # A child process measures, because this process's peak may already be higher.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        one, few, many = pool.submit(few_then_many, str(tmp_path)).result(timeout=120)
    assert (many[0] - few[0]) / (MANY - FEW) < 500  # bytes
    start_up = one[1]
    assert (many[1] - start_up) / MANY < 1.6 * (few[1] - start_up) / FEW
    out = str(tmp_path / f"{MANY}")
    assert plan_summary.rows(out) == MANY
    assert sum(1 for _ in plan_summary.rejects(out)) == MANY // 10
