"""The H.264 encoder of *Shapes* clips."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.decoding import ffmpeg
from pipelines.processes.timeouts import Timeout
from pipelines.shapes import ShapesError, render
from pipelines.shapes.scene import Clip

ENCODE_SECONDS = 120
"""Timeout in seconds for the encoding of a video, which takes about 0.1 s."""
CRF = 14
"""H.264 constant rate factor; at 14, losses are invisible."""


def encode(clips: Sequence[Clip], path: Path) -> None:
    """Concatenate clips of one format to a deterministic mp4 file.

    Raises:
      ShapesError: ffmpeg failed or exceeded ENCODE_SECONDS.
      FfmpegError: ffmpeg is missing.
    """
    pixels = b"".join(render.frames(clip).tobytes() for clip in clips)
    film = clips[0].format
    # fmt: off
    command = [
        ffmpeg.executable(), "-hide_banner", "-loglevel", "error", "-y",
        "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{film.side}x{film.side}",
        "-framerate", str(film.fps), "-i", "pipe:0",
        "-c:v", "libx264", "-preset", "veryfast", "-crf", str(CRF), "-pix_fmt", "yuv420p",
        "-sws_flags", "accurate_rnd+bitexact", "-threads", "1",
        "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1",
        "-movflags", "+faststart", "-f", "mp4", f"file:{path.resolve()}",
    ]
    # fmt: on
    try:
        with tempfile.TemporaryFile() as raw:
            raw.write(pixels)
            raw.seek(0)
            with subprocess.Popen(
                command, stdin=raw, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as child:
                _, said = Timeout(ENCODE_SECONDS).communicate(child)
    except subprocess.TimeoutExpired:
        raise ShapesError(
            f"ffmpeg did not encode {path} within {ENCODE_SECONDS} s: "
            "check that the machine is not overloaded and that the folder's device responds"
        ) from None
    if child.returncode:
        complaint = said.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ShapesError(
            f"ffmpeg could not encode {path} (exit status {child.returncode}, {complaint[-1]}): "
            "check that the disk has room and that ffmpeg includes libx264"
        )
