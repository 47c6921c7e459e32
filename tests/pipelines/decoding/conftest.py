"""Fixtures: numbered videos, and ffmpeg's frames and times as the reference."""

import bisect
import re
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipelines.decoding import ffmpeg, video
from pipelines.decoding.spans import frame_times_us
from pipelines.decoding.video_file import Failure

WIDTH, HEIGHT, FRAMES, FRAME_US = 96, 64, 150, 40_000
NUMBERED = (  # eight blocks of one bit each, with some noise
    f"color=s={WIDTH}x{HEIGHT}:r=25:d=6,format=yuv420p,"
    "geq=lum='if(mod(floor(N/pow(2,floor(X/12))),2),200,50)+mod(X*7+Y*13+N*5,20)'"
    ":cb='128+20*sin(N/9)':cr=128"
)


class Truth(NamedTuple):
    """All frames of a video by presentation time, decoded by the ffmpeg program."""

    times_us: list[int]
    numbers: list[int]

    def shown(self, start_us: int, end_us: int, frames: int) -> list[int]:
        """Return the numbers of a span's frames."""
        places = [
            bisect.bisect_right(self.times_us, time_us) - 1
            for time_us in frame_times_us(start_us, end_us, frames)
        ]
        return [self.numbers[max(0, place)] for place in places]


def number(picture: np.ndarray) -> int:
    """Return the number in a grey picture [HEIGHT, WIDTH]."""
    bits = [picture[8:56, 12 * i + 3 : 12 * i + 9].mean() > 135 for i in range(8)]
    return sum(bit << i for i, bit in enumerate(bits))


class Films:
    """A folder of videos."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source.mkv"
        self.run("-f", "lavfi", "-i", NUMBERED, "-c:v", "ffv1", self.source)

    def run(self, *arguments, source: Path | None = None) -> str:
        """Run ffmpeg; return its log if it fails."""
        read = [] if source is None else ["-i", source]
        command = [ffmpeg.executable(), "-v", "error", "-nostdin", "-y", *read, *arguments]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=120
        )
        return "" if not done.returncode else done.stderr or "failed"

    def make(self, name: str, *options: str) -> Path:
        """Encode the numbered video."""
        path = self.folder / name
        if not path.exists():
            pixels = (
                ()
                if any(option in options for option in ("-pix_fmt", "-vf"))
                else (
                    "-pix_fmt",
                    "yuv420p",
                )
            )
            assert not self.run(*options, *pixels, path, source=self.source)
        return path

    def truth(self, path: Path) -> Truth:
        """Return ffmpeg's frames of a whole video."""
        command = [
            *(ffmpeg.executable(), "-nostdin", "-hide_banner", "-copyts", "-start_at_zero"),
            *("-i", str(path), "-map", "0:V:0", "-fps_mode", "passthrough", "-vf"),
            "settb=1/1000000,showinfo=checksum=0,"
            f"scale={WIDTH}:{HEIGHT}:flags=neighbor,format=gray",
            *("-f", "rawvideo", "-"),
        ]
        done = subprocess.run(command, capture_output=True, timeout=120)
        times = re.findall(rb"showinfo[^\n]*\] n: *\d+ pts: *(-?\d+) ", done.stderr)
        pictures = np.frombuffer(done.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH)
        return Truth([int(time) for time in times], [number(picture) for picture in pictures])

    def decode(
        self, path: Path, *spans: tuple[int, int], decoder: str = "pyav", frames: int = 5, **options
    ) -> list[video.Frames | Failure]:
        """Return the decoded spans of a video."""
        found = video.decode(
            str(path), spans, frames=frames, short_side=HEIGHT, decoder=decoder, **options
        )
        results = dict(found)
        return [results[i] for i in range(len(spans))]

    def numbers(self, result: video.Frames | Failure) -> list[int]:
        """Return the frame numbers of a decoded span."""
        assert isinstance(result, video.Frames), result
        return [number(picture.mean(-1)) for picture in result.pixels]

    def check(
        self,
        path: Path,
        spans: Sequence[tuple[int, int]],
        *,
        decoder: str = "pyav",
        truth: Truth | None = None,
    ) -> None:
        """Compare spans with the reference, decoded together and separately."""
        truth = truth or self.truth(path)
        together = self.decode(path, *spans, decoder=decoder)
        for span, result in zip(spans, together, strict=True):
            (alone,) = self.decode(path, span, decoder=decoder)
            want = truth.shown(*span, 5)
            assert self.numbers(result) == want, span
            assert self.numbers(alone) == want, span
            assert isinstance(alone, video.Frames) and isinstance(result, video.Frames)
            assert (alone.pixels == result.pixels).all(), span

    def edited(self, path: Path, name: str, *parts: tuple[int, int]) -> Path:
        """Return a copy of an MP4 with another edit list of lengths (ms) and media offsets."""
        entries = b"".join(struct.pack(">IiI", *part, 1 << 16) for part in parts)
        listed = _box(b"elst", struct.pack(">II", 0, len(parts)) + entries)
        copy = self.folder / name
        copy.write_bytes(
            changed_box(path.read_bytes(), [b"moov", b"trak", b"edts"], lambda _: listed)
        )
        return copy


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def changed_box(data: bytes, path: list[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """Return an MP4 with one box changed or added; moov must be the last box."""
    written, place, found = b"", 0, False
    skipped = {b"stsd": 8, b"avc1": 78}.get(path[0], 0)
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + size]
        if kind == path[0] and not found:
            found = True
            if len(path) == 1:
                content = change(content)
            else:
                inner = changed_box(content[skipped:], path[1:], change)
                content = content[:skipped] + inner
        written += _box(kind, content)
        place += size
    return written if found else written + _box(path[0], change(b""))


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    return Films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="session")
def change_box():
    return changed_box
