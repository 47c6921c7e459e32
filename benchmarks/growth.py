"""Size and opening time of a snapshot that grows by many appends of a few clips.

Each append runs as in `svilm-pipelines append`, without its Beam graph: it plans and decodes one
shard, looks for clips that are there already, links the files of the earlier version and writes the
manifest. The video is tiny. An earlier version is deleted once the next is complete. Times are CPU
seconds of all threads, without the decoder's own process, so that other programs do not count.
Writes benchmarks/results/growth.json.

    python benchmarks/growth.py
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.fspath(pathlib.Path(__file__).parents[1]))

from pipelines.building import shard
from pipelines.building.graph import write_manifest
from pipelines.building.nouns import NounParser, default_model
from pipelines.decoding import ffmpeg
from pipelines.planning import plan
from pipelines.planning.video_lookup import VideoLookup
from pipelines.snapshots import increments, snapshot, verify
from pipelines.sources.clip_request import ClipRequest, clip_id
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG
from protos.v1.manifest_pb2 import AnnotationFile, BuildConfig
from trainer.data.snapshot import Snapshot

_RESULTS = pathlib.Path(__file__).parent / "results" / "growth.json"
_SHARDS = 16  # of the build
_VIDEOS = 64  # of the build
_CLIPS = 3  # of each video; an append has one video
_REPEATS = 5


def main() -> int:
    """Grow a snapshot, and write the figures after each tenfold number of appends."""
    parser = argparse.ArgumentParser(description="Measure a snapshot that grows by appends.")
    parser.add_argument("--appends", type=int, default=1000, help="default: 1000")
    parser.add_argument("--out", default=str(_RESULTS), help="file for the figures")
    arguments = parser.parse_args()
    marks = [10**power for power in range(7) if 10**power <= arguments.appends]
    with tempfile.TemporaryDirectory(prefix="growth-") as work:
        grown = Growth(pathlib.Path(work))
        first = (grown.folder / "shard-00000-of-00016.tfrecord").read_bytes()
        figures = [grown.figures(0, 0.0)]
        for number in range(1, arguments.appends + 1):
            began = time.process_time()
            grown.append(number)
            seconds = time.process_time() - began
            if number in marks:
                figures.append(grown.figures(number, seconds))
                print(json.dumps(figures[-1]), flush=True)
        if (grown.folder / "shard-00000-of-00016.tfrecord").read_bytes() != first:
            raise RuntimeError("the first shard has changed")
        began = time.process_time()
        faults = verify.faults(os.fspath(grown.folder), verify.read_manifest(str(grown.folder)))
        if faults:
            raise RuntimeError(faults[0])
        verified = round(time.process_time() - began, 3)
    results = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "clips_of_an_append": _CLIPS,
        "figures": figures,
        "verify_cpu_s": verified,
    }
    pathlib.Path(arguments.out).write_text(json.dumps(results, indent=2) + "\n")
    return 0


class Growth:
    """A snapshot and its next versions."""

    def __init__(self, work: pathlib.Path) -> None:
        """Build the first version in the folder `work`."""
        self._work, self._videos = work, work / "videos"
        self._videos.mkdir()
        source = "color=s=64x48:r=25:d=2"
        command = [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", source]
        subprocess.run([*command, os.fspath(work / "video.mp4")], check=True)
        self._parser = NounParser(default_model(), contract.PROMPT_TEMPLATES)
        self._plan = plan.Plan(
            source="videocc",
            annotations=(),
            annotation_files=(_annotations(0),),
            videos=os.fspath(self._videos),
            out=os.fspath(work / "0"),
            data_version="1.0.0",
            config=BuildConfig(
                frames_per_clip=4,
                short_side=24,
                frame_encoding=FRAME_ENCODING_JPEG,
                jpeg_quality=90,
                prompt_templates=contract.PROMPT_TEMPLATES,
                num_shards=_SHARDS,
            ),
            versions={"ffmpeg": "7"},
            spacy_model=default_model(),
            decoder="pyav",
            decode_seconds=60.0,
        )
        self._write(self._plan, [self._video(f"first{video}") for video in range(_VIDEOS)])

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the last version."""
        return pathlib.Path(self._plan.out)

    def append(self, number: int) -> None:
        """Append a video with its clips, and delete the version before."""
        base = self._plan.out
        manifest = verify.read_manifest(base)
        config = BuildConfig()
        config.CopyFrom(self._plan.config)
        config.num_shards = 1
        planned = dataclasses.replace(
            self._plan,
            annotation_files=(_annotations(number),),
            out=os.fspath(self._work / str(number)),
            data_version=increments.next_minor(manifest.data_version),
            config=config,
            base=base,
            base_sha256=snapshot.manifest_sha256(base),
            increment=len(increments.split(manifest)),
        )
        plan.check_append(planned, manifest)
        self._write(planned, [self._video(f"video{number}")])
        self._plan = planned
        shutil.rmtree(base)

    def _video(self, video_id: str) -> list[ClipRequest]:
        os.link(self._work / "video.mp4", self._videos / f"{video_id}.mp4")
        spans = [(start, start + 500_000) for start in range(0, _CLIPS * 500_000, 500_000)]
        return [
            ClipRequest(
                clip_id(video_id, *span, "a man"),
                *(video_id, *span, "a man", (), f"rows.csv:{video_id}:{row}"),
            )
            for row, span in enumerate(spans, 1)
        ]

    def _write(self, planned: plan.Plan, videos: list[list[ClipRequest]]) -> None:
        os.mkdir(planned.out)
        size = planned.config.num_shards
        rows = [row for video in videos for row in video]
        lookup = VideoLookup(planned.videos)
        outcomes = [
            shard.build_shard(
                number,
                [row for row in rows if snapshot.shard_of(row.video_id, size) == number],
                planned,
                self._parser,
                lookup,
            )
            for number in range(size)
        ]
        write_manifest(planned, len(rows), [], outcomes)

    def figures(self, appends: int, seconds: float) -> dict[str, Any]:
        """Return the figures of the last version.

        Args:
          appends: number of appends so far.
          seconds: CPU time of the last one.
        """
        folder = os.fspath(self.folder)
        opened = Snapshot.open(folder)

        def read_spread() -> None:
            fresh = Snapshot.open(folder)
            fresh.read([len(fresh) * part // 256 for part in range(256)])

        return {
            "appends": appends,
            "records": len(opened),
            "files": len(os.listdir(folder)),
            "manifest_bytes": (self.folder / contract.MANIFEST_NAME).stat().st_size,
            "last_append_cpu_s": round(seconds, 3),
            "pipelines_open_cpu_s": _median_seconds(lambda: verify.read_manifest(folder)),
            "trainer_open_cpu_s": _median_seconds(lambda: Snapshot.open(folder)),
            "trainer_open_and_read_256_clips_cpu_s": _median_seconds(read_spread),
        }


def _annotations(number: int) -> AnnotationFile:
    name = f"rows-{number}.csv"
    return AnnotationFile(name=name, bytes=1, sha256=hashlib.sha256(name.encode()).hexdigest())


def _median_seconds(call: Callable[[], Any]) -> float:
    durations = []
    for _ in range(_REPEATS):
        began = time.process_time()
        call()
        durations.append(time.process_time() - began)
    return round(statistics.median(durations), 4)


if __name__ == "__main__":
    sys.exit(main())
