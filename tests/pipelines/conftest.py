"""Fixtures: real videos with numbered frames, records, snapshots and the command line."""

import collections
import functools
import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipelines.decoding import ffmpeg, frame_codec
from pipelines.decoding.sandbox import fork_client
from pipelines.snapshots import snapshot
from pipelines.snapshots.snapshot import config_sha256, shard_of
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG, Clip, FrameEncoding, NounChunk
from protos.v1.manifest_pb2 import (
    BuildConfig,
    Counts,
    Manifest,
    PlanSummary,
    Reject,
    ShardEntry,
    ShardSummary,
    VideoFile,
)
from tests.forks import Forks


@pytest.fixture(scope="session")
def make_video():
    """Return make_video(path, …), which writes lossless 64×48 video, 25 fps; frame n has grey n."""

    def make(path: Path, *, filters: str = "null", seconds: float = 4, options=(), sound=False):
        noise = ["-f", "lavfi", "-i", f"sine=d={seconds}", "-c:a", "aac"] if sound else []
        run_ffmpeg(
            *("-f", "lavfi", "-i", f"color=s=64x48:r=25:d={seconds},format=gray,geq=lum=N"),
            *noise,
            *("-vf", filters, "-fps_mode", "passthrough", "-c:v", "libx264", "-qp", "0"),
            *("-pix_fmt", "yuv444p", "-color_range", "pc", "-g", "30"),
            *options,
            path,
        )
        return path

    return make


@pytest.fixture(scope="session")
def ffmpeg_run():
    return run_ffmpeg


def run_ffmpeg(*arguments) -> None:
    command = [ffmpeg.executable(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)


IMPORTS = """
from pipelines.building import estimate, graph, nouns, runners
from pipelines.cli import arguments, engine, progress
from pipelines.decoding import with_pyav
from pipelines.snapshots import remove, verify
from pipelines.snapshots.export import parquet, sequence_example, webdataset
nouns._load(nouns.default_model())
"""
COMMAND = "import sys; from pipelines.cli.main import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def no_missing_layers():
    """Forget the sandbox layers that a test did without: later builds would count them."""
    yield
    fork_client.seen.clear()


@pytest.fixture(scope="session")
def forks():
    """Return a process that has imported all that a build needs."""
    forks = Forks(IMPORTS)
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def cli(forks):
    """Return cli(…), which runs svilm-pipelines in a child process."""
    return functools.partial(forks.run, COMMAND)


@pytest.fixture(scope="session")
def begin(forks):
    """Return begin(…), which starts svilm-pipelines in a child process."""
    return functools.partial(forks.start, COMMAND)


def clip_of(
    video_id: str,
    start_us: int = 0,
    *,
    caption: str = "a man",
    grey: int = 0,
    encoding: FrameEncoding = FRAME_ENCODING_JPEG,
) -> Clip:
    """Return a record of one second with four frames of 12×8 pixels. Its last word is a chunk."""
    start = caption.rindex(" ") + 1
    noun = caption[start:]
    prompts = [template.format(noun) for template in contract.PROMPT_TEMPLATES]
    return Clip(
        clip_id=f"{video_id}_{start_us}_{start_us + 1_000_000}",
        video_id=video_id,
        start_us=start_us,
        end_us=start_us + 1_000_000,
        caption=caption,
        noun_chunks=[NounChunk(text=noun, start=start, end=len(caption), prompts=prompts)],
        frames=frame_codec.encode(np.full((4, 8, 12, 3), grey, np.uint8), encoding, 90),
        frame_time_us=[start_us + i for i in range(4)],
        frame_encoding=encoding,
        height=8,
        width=12,
        source_row=f"rows.csv:{video_id}-{start_us}:1",
    )


@pytest.fixture
def make_clip():
    return clip_of


@pytest.fixture
def write_snapshot():
    """Return write_snapshot(folder, clips, …), which writes a valid snapshot of given records."""
    return write_small_snapshot


def write_small_snapshot(
    folder: Path,
    clips: list[Clip],
    *,
    rejects: tuple[Reject, ...] = (),
    plan_rejects: tuple[Reject, ...] = (),
    shards: int = 3,
    encoding: FrameEncoding = FRAME_ENCODING_JPEG,
    jpeg_quality: int = 90,
    data_version: str = "1.0.0",
    videos: str = "an upload",
) -> Manifest:
    folder.mkdir()
    config = BuildConfig(
        frames_per_clip=4,
        short_side=8,
        frame_encoding=encoding,
        jpeg_quality=jpeg_quality,
        prompt_templates=contract.PROMPT_TEMPLATES,
        num_shards=shards,
    )
    entries, digests = [], []
    for shard in range(shards):
        stem = contract.shard_name(shard, shards)
        own = [clip for clip in clips if shard_of(clip.video_id, shards) == shard]
        with snapshot.ShardWriter(str(folder), stem) as writer:
            for clip in sorted(own, key=lambda clip: clip.clip_id):
                writer.append(clip)
        refused = [reject for reject in rejects if shard_of(reject.video_id, shards) == shard]
        summary = ShardSummary(
            fingerprint=f"shard {shard}",
            rows=len(own) + len(refused),
            records=len(own),
            data=writer.data,
            index=writer.index,
            videos=[
                VideoFile(
                    video_id=video_id,
                    bytes=1,
                    sha256=hashlib.sha256(f"{videos} of {video_id}".encode()).hexdigest(),
                )
                for video_id in sorted({clip.video_id for clip in own})
            ],
            rejects=refused,
        )
        digests.append(snapshot.videos_sha256(summary))
        entry = snapshot.write_file(str(folder), f"{stem}.json", snapshot.to_json(summary))
        entries.append(
            ShardEntry(records=len(own), data=writer.data, index=writer.index, summary=entry)
        )
    rows = len(clips) + len(rejects) + len(plan_rejects)
    plan = PlanSummary(rows=rows, rejects=plan_rejects)
    versions = {"ffmpeg": "7.1"}
    manifest = Manifest(
        schema_version=contract.SCHEMA_VERSION,
        data_version=data_version,
        dataset="videocc",
        inputs_sha256=snapshot.inputs_sha256([], digests),
        config_sha256=config_sha256(config, versions),
        config=config,
        versions=versions,
        counts=Counts(
            rows=rows,
            records=len(clips),
            rejects=collections.Counter(reject.reason for reject in (*rejects, *plan_rejects)),
        ),
        shards=entries,
        plan=snapshot.write_file(str(folder), contract.PLAN_NAME, snapshot.to_json(plan)),
    )
    snapshot.write_file(str(folder), contract.MANIFEST_NAME, snapshot.to_json(manifest))
    return manifest
