"""Real videos whose frames tell their number, and the command line as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import ffmpeg

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def make_video():
    """make_video(path, …): 64×48 at 25 fps, lossless; frame n is of grey n."""

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


@pytest.fixture(scope="session")
def cli():
    """cli(…): runs svilm-pipelines in a process of its own."""

    def run(*arguments, env=None, timeout=240):
        return subprocess.run(
            [sys.executable, "-m", "pipelines.main", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
