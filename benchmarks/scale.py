"""Time and memory per row of large inputs, which must not grow with the number of rows.

Annotations are generated. What is measured runs in processes of its own, whose peak resident
memory is read from /proc. Writes benchmarks/results/scale.json.

    python benchmarks/scale.py
"""

import argparse
import json
import os
import pathlib
import platform
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

_RESULTS = pathlib.Path(__file__).parent / "results" / "scale.json"

WORKERS = 2
SHARDS = 18_000  # some that 3.3 million clips at the default size have
VIDEOCC_ROWS = (330_000, 3_300_000)
HOWTO100M_LINES = (1_000_000, 5_000_000)
CLIPS = (1_000, 100_000)
SPANS = 20  # of a small video
SNAPSHOT_SHARDS = (5_000, 20_000)

_ID = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


# --- Generated inputs --------------------------------------------------------------------------


def _captions(rng: random.Random) -> Iterator[str]:
    """Captions of six to fourteen made-up words."""
    words = ["".join(rng.choices(_ID[:26], k=rng.randint(2, 9))) for _ in range(2000)]
    while True:
        yield " ".join(rng.choices(words, k=rng.randint(6, 14)))


def _write_videocc(path: pathlib.Path, rows: int) -> None:
    """Two spans of 10 s a video; a twentieth of the rows has no number for its end."""
    rng = random.Random(0)
    with path.open("w") as file:
        for row, caption in zip(range(rows), _captions(rng), strict=False):
            if row % 2 == 0:
                video = "".join(rng.choices(_ID, k=11))
            start = rng.randrange(600) * 1_000_000
            end = "soon" if row % 20 == 0 else start + 10_000_000
            file.write(f"https://www.youtube.com/watch?v={video},{start},{end},{caption}\n")


def _write_howto100m(path: pathlib.Path, lines: int) -> None:
    """Write a hundred lines a video, HowTo100M's average."""
    rng = random.Random(0)
    captions = _captions(rng)
    with path.open("w") as file:
        for first in range(0, lines, 100):
            starts = [3.5 * i + 0.41 for i in range(100)]
            entry = {
                "start": starts,
                "end": [start + 4.2 for start in starts],
                "text": [next(captions) for _ in starts],
            }
            key = "".join(rng.choices(_ID, k=11))
            file.write(f'{", " if first else "{"}"{key}": {json.dumps(entry)}')
        file.write("}")


def _write_small_videos(folder: pathlib.Path, clips: int) -> None:
    """Annotations of SPANS overlapping seconds a video; the videos are one file of many names."""
    from pipelines.decoding import ffmpeg

    videos = folder / "videos"
    videos.mkdir(parents=True)
    source = folder / "source.mp4"
    command = [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=4"]
    subprocess.run([*command, "-g", "10", "-pix_fmt", "yuv420p", str(source)], check=True)
    captions = _captions(random.Random(0))
    with (folder / "rows.csv").open("w") as file:
        for video in range(clips // SPANS):
            name = f"v{video:010d}"
            os.link(source, videos / f"{name}.mp4")
            for span in range(SPANS):
                start = span * 150_000
                file.write(f"{name},{start},{start + 1_000_000},{next(captions)}\n")


# --- What is measured, each in a process of its own --------------------------------------------


def _plan(path: str, min_words: int, out: str) -> dict[str, float]:
    """Run a build's survey and graph; count each shard's rows in place of decoding."""
    began = time.monotonic()
    import apache_beam as beam

    from pipelines.building import graph, row_spill, runners
    from pipelines.building.shard import ShardOutcome
    from pipelines.planning import plan
    from protos import contract
    from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG
    from protos.v1.manifest_pb2 import BuildConfig, Filters, ShardEntry, SourceOptions

    class CountRows(beam.DoFn):
        def process(self, element):
            shard, places = element
            rows = sum(1 for _ in row_spill.requests(out, places))
            yield ShardOutcome(shard, rows, {"video_missing": rows}, ShardEntry(), "", False)

    os.makedirs(out)
    imported = time.monotonic()
    options = SourceOptions()
    survey = plan.survey("videocc", (path,), options)
    surveyed = time.monotonic()
    config = BuildConfig(
        frames_per_clip=32,
        short_side=256,
        frame_encoding=FRAME_ENCODING_JPEG,
        jpeg_quality=95,
        prompt_templates=contract.PROMPT_TEMPLATES,
        num_shards=SHARDS,
        source=options,
        filters=Filters(min_caption_words=min_words),
    )
    versions = {"pipeline": plan.PIPELINE_VERSION}
    planned = plan.Plan(
        *(
            "videocc",
            survey.paths,
            survey.files,
            "videos",
            out,
            "1.0.0",
            config,
            versions,
            "",
            "",
            1.0,
        )
    )
    runner, beam_options = runners.choose(WORKERS, [])
    with beam.Pipeline(runner=runner, options=beam_options) as pipeline:
        graph.graph(pipeline, planned, CountRows())
    return {
        "import_s": imported - began,
        "survey_s": surveyed - imported,
        "graph_s": time.monotonic() - surveyed,
        "plan_json_bytes": os.path.getsize(os.path.join(out, "plan.json")),
    }


def _read_howto100m(path: str) -> dict[str, float]:
    """Read a file by the HowTo100M source."""
    from pipelines.planning import plan
    from pipelines.sources.clip_request import ClipRequest
    from protos.v1.manifest_pb2 import SourceOptions

    began = time.monotonic()
    rows = plan.read_rows([path], "howto100m", SourceOptions())
    read = sum(isinstance(row, ClipRequest) for row in rows)
    return {"read": read, "seconds": time.monotonic() - began}


def _many_shards(shards: int, out: str) -> dict[str, float]:
    """Write a manifest of many shards; verify and describe the snapshot."""
    import numpy as np

    from pipelines.building import graph
    from pipelines.building.shard import ShardOutcome
    from pipelines.decoding import frame_codec
    from pipelines.planning import plan
    from pipelines.snapshots import snapshot, verify
    from pipelines.snapshots.card import page
    from protos import contract
    from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG, Clip
    from protos.v1.manifest_pb2 import BuildConfig, ShardEntry, ShardSummary

    os.makedirs(out)
    config = BuildConfig(
        frames_per_clip=2,
        short_side=8,
        frame_encoding=FRAME_ENCODING_JPEG,
        jpeg_quality=90,
        num_shards=shards,
    )
    frames = frame_codec.encode(np.zeros((2, 8, 12, 3), np.uint8), FRAME_ENCODING_JPEG, 90)
    by_shard: dict[int, list[str]] = {}
    for video in (f"video{i}" for i in range(shards)):
        by_shard.setdefault(snapshot.shard_of(video, shards), []).append(video)
    outcomes = []
    for shard in range(shards):
        stem = contract.shard_name(shard, shards)
        with snapshot.ShardWriter(out, stem) as writer:
            for video in sorted(by_shard.get(shard, ())):
                clip = Clip(
                    clip_id=video,
                    video_id=video,
                    end_us=1,
                    caption="a man",
                    frames=frames,
                    frame_time_us=[0, 0],
                    frame_encoding=FRAME_ENCODING_JPEG,
                    height=8,
                    width=12,
                    source_row="rows.csv:1",
                )
                writer.append(clip)
        count = writer.records
        summary = ShardSummary(rows=count, records=count, data=writer.data, index=writer.index)
        file = snapshot.write_file(out, f"{stem}.json", snapshot.to_json(summary))
        entry = ShardEntry(records=count, data=writer.data, index=writer.index, summary=file)
        outcomes.append(ShardOutcome(shard, count, {}, entry, "", False))
    planned = plan.Plan("videocc", (), (), "videos", out, "1.0.0", config, {}, "", "", 1.0)
    written = _cpu_seconds()
    graph.write_manifest(planned, shards, [], outcomes)
    completed = _cpu_seconds()
    manifest = verify.read_manifest(out)
    read = _cpu_seconds()
    if wrong := verify.faults(out, manifest, WORKERS):
        raise RuntimeError(wrong[0])
    verified = _cpu_seconds()
    page.data_card(out, manifest, clips=8, records=100)
    return {
        "write_manifest_cpu_s": completed - written,
        "read_manifest_cpu_s": read - completed,
        "verify_cpu_s": verified - read,
        "describe_100_records_cpu_s": _cpu_seconds() - verified,
    }


def _cpu_seconds() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


_JOBS = {"plan": _plan, "howto100m": _read_howto100m, "many_shards": _many_shards}


# --- Processes and their memory ----------------------------------------------------------------


def _job(name: str, *arguments: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Run one of _JOBS; return its result and the figures of `_watched`."""
    words = [str(pathlib.Path(__file__)), "--job", json.dumps([name, *arguments])]
    printed, used = _watched([sys.executable, *words])
    return json.loads(printed), used


def _watched(command: list[str]) -> tuple[str, dict[str, float]]:
    """Run a command; return its output, its seconds and its peaks of memory in MB.

    Memory is resident, with what processes share counted in each: of the command's own process, and
    of the largest of its Beam workers.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in _tree(process.pid):
            try:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            high = re.search(r"VmHWM:\s+(\d+) kB", status)
            if high and (pid == process.pid or b"pipelines.building.sdk_worker" in words):
                peaks[pid] = max(peaks.get(pid, 0), int(high[1]))
        time.sleep(0.05)
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.stdout is not None
    printed = process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    main = peaks.pop(process.pid)
    return printed, {
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "main_mb": main * 1024 / 1e6,
        "worker_mb": max(peaks.values(), default=0) * 1024 / 1e6,
    }


def _tree(pid: int) -> Iterator[int]:
    """Return a process and its descendants."""
    yield pid
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            text = children.read_text()
        except OSError:
            continue
        for child in text.split():
            yield from _tree(int(child))


# --- The figures -------------------------------------------------------------------------------


def _planning(folder: pathlib.Path) -> dict[str, Any]:
    """Planning VideoCC: a twentieth of the rows rejected; then all of them, by a filter."""
    found: dict[str, Any] = {}
    for rows, min_words in (*((rows, 0) for rows in VIDEOCC_ROWS), (VIDEOCC_ROWS[-1], 99)):
        path = folder / f"videocc-{rows}.csv"
        if not path.exists():
            _write_videocc(path, rows)
        name = f"{rows} rows, all rejected" if min_words else f"{rows} rows"
        returned, used = _job("plan", str(path), min_words, str(_fresh(folder / "plan")))
        found[name] = returned | used
        _tell(f"planning {name}", found[name])
    few, many = (found[f"{rows} rows"] for rows in VIDEOCC_ROWS)
    found["kb_a_row"] = _growth(few, many, *VIDEOCC_ROWS)
    return found


def _howto100m(folder: pathlib.Path) -> dict[str, Any]:
    """Measure the HowTo100M source alone."""
    found: dict[str, Any] = {}
    for lines in HOWTO100M_LINES:
        path = folder / f"howto100m-{lines}.json"
        if not path.exists():
            _write_howto100m(path, lines)
        returned, used = _job("howto100m", str(path))
        if returned["read"] != lines:
            raise RuntimeError(f"{returned['read']} of {lines} lines read")
        found[f"{lines} lines"] = used | returned
        _tell(f"reading {lines} lines", found[f"{lines} lines"])
    few, many = (found[f"{lines} lines"] for lines in HOWTO100M_LINES)
    found["kb_a_line"] = _growth(few, many, *HOWTO100M_LINES)
    return found


def _clips(folder: pathlib.Path) -> dict[str, Any]:
    """Whole builds of small videos, by the command line."""
    found: dict[str, Any] = {}
    script = str(pathlib.Path(sys.executable).parent / "svilm-pipelines")
    for clips in CLIPS:
        where = _fresh(folder / f"clips-{clips}")
        _write_small_videos(where, clips)
        inputs = ["--annotations", str(where / "rows.csv"), "--videos", str(where / "videos")]
        options = ["--frames", "4", "--short-side", "24", "--workers", str(WORKERS)]
        printed, used = _watched(
            [script, "build", "videocc", *inputs, "--out", str(where / "snapshot"), *options]
        )
        pace = re.search(r"([\d,.]+) clips/s after ([\d.]+) s of start-up", printed)
        if pace is None or f"{clips:,} rows = {clips:,} records" not in printed:
            raise RuntimeError(f"not every row became a record: {printed}")
        rate = float(pace[1].replace(",", ""))
        found[f"{clips} clips"] = used | {"clips_per_second": rate, "start_up_s": float(pace[2])}
        _tell(f"building {clips} clips", found[f"{clips} clips"])
    few, many = (found[f"{clips} clips"] for clips in CLIPS)
    found["time_a_clip_many_to_few"] = few["clips_per_second"] / many["clips_per_second"]
    found["kb_a_clip"] = _growth(few, many, *CLIPS)
    return found


def _snapshot_shards(folder: pathlib.Path) -> dict[str, Any]:
    """Snapshots of many nearly empty shards."""
    found: dict[str, Any] = {}
    for shards in SNAPSHOT_SHARDS:
        returned, used = _job("many_shards", shards, str(_fresh(folder / "shards")))
        found[f"{shards} shards"] = used | returned
        _tell(f"{shards} shards", found[f"{shards} shards"])
    few, many = (found[f"{shards} shards"] for shards in SNAPSHOT_SHARDS)
    found["seconds_many_to_few"] = {
        name: many[name] / few[name] for name in many if name.endswith("_cpu_s")
    }
    return found


def _growth(few: dict[str, float], many: dict[str, float], low: int, high: int) -> float:
    """Return the growth of the job's peak memory per row, over all its processes: kB."""

    def whole(used: dict[str, float]) -> float:
        return used["main_mb"] + WORKERS * used["worker_mb"]

    return (whole(many) - whole(few)) * 1e3 / (high - low)


def _fresh(folder: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _tell(name: str, figures: dict[str, float]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {value:,.6g}" for key, value in figures.items()))
    sys.stdout.flush()


_PARTS = {
    "planning": _planning,
    "howto100m": _howto100m,
    "clips": _clips,
    "shards": _snapshot_shards,
}


def measure(folder: pathlib.Path, parts: list[str]) -> dict[str, Any]:
    """Measure some of _PARTS; the figures of others stay."""
    folder.mkdir(parents=True, exist_ok=True)
    found = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    for part in parts:
        found[part] = {"how": _PARTS[part].__doc__} | _PARTS[part](folder)
        found["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python " + (
            platform.python_version()
        )
        _RESULTS.parent.mkdir(exist_ok=True)
        _RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    return found


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/scale", help="folder for generated files")
    parser.add_argument(
        "--parts", nargs="+", choices=_PARTS, default=[*_PARTS], help="parts to measure"
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        name, *words = json.loads(arguments.job)
        print(json.dumps(_JOBS[name](*words)))
        return 0
    measure(pathlib.Path(arguments.out), arguments.parts)
    print(f"written to {_RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
