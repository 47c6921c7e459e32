"""Video files with both decoders: each span gives frames or a typed failure, once."""

import functools
import random
import subprocess

import numpy as np

from pipelines.decoding import ffmpeg, video
from pipelines.decoding.spans import TO_THE_END
from pipelines.decoding.video_file import Failure
from pipelines.sources.reject_reasons import REASONS
from tests.fuzz import mutate
from tests.fuzz.engine import Target
from tests.fuzz.folder import folder

_SPANS = ([(0, 400_000), (200_000, 1_000_000), (500_000, 520_000)], [(0, TO_THE_END)])
_LIMITS = video.Limits(seconds=20)
# ffmpeg's options of each seed, besides a small test picture of one second.
_SEEDS = {
    "mp4": ("-c:v", "libx264", "-g", "5", "-bf", "2"),
    "mov": ("-c:v", "mpeg4", "-movflags", "+faststart"),
    "mkv": ("-c:v", "libx264", "-g", "4"),
    "webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "avi": ("-c:v", "mpeg4", "-g", "5"),
    "ts": ("-c:v", "libx264", "-g", "5"),
    "flv": ("-c:v", "flv1"),
}


def targets() -> list[Target]:
    """Return one target per decoder and container."""
    return [
        Target(
            f"{decoder} {kind}",
            [_seed(kind)],
            functools.partial(_check, decoder, kind),
            _mutated,
            seconds=60.0,
        )
        for kind in _SEEDS
        for decoder in sorted(video.DECODERS)
    ]


@functools.cache
def _seed(kind: str) -> bytes:
    path = folder() / f"seed.{kind}"
    command = [ffmpeg.executable(), "-v", "error", "-nostdin", "-y"]
    command += ["-f", "lavfi", "-i", "testsrc=size=48x32:rate=10:duration=1.2"]
    command += ["-pix_fmt", "yuv420p", "-threads", "1", *_SEEDS[kind], str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path.read_bytes()


def _mutated(data: bytes, draw: random.Random) -> bytes:
    """Mutate any byte, or the container's structure near an end of the file."""
    cut = min(len(data), draw.choice((64, 600)))
    match draw.randrange(4):
        case 0:
            return mutate.raw(data[:cut], draw) + data[cut:]
        case 1:
            return data[:-cut] + mutate.raw(data[-cut:], draw)
        case _:
            return mutate.raw(data, draw)


def _check(decoder: str, kind: str, data: bytes) -> None:
    path = folder() / f"tried.{kind}"
    path.write_bytes(data)
    spans = _SPANS[len(data) % 2]
    answered = []
    for span, found in video.decode(
        str(path),
        spans,
        min_us=[1] * len(spans),
        frames=3,
        short_side=16,
        decoder=decoder,
        limits=_LIMITS,
    ):
        answered.append(span)
        if isinstance(found, Failure):
            assert found.reason in REASONS, found.reason
            assert "\n" not in found.message, "a message of several lines"
            assert found.reason != "decode_timeout", "no answer within the time limit"
        else:
            count, height, width, channels = found.pixels.shape
            assert (count, channels) == (3, 3)
            assert found.pixels.dtype == np.uint8
            assert min(height, width) == 16
            start_us, end_us = spans[span]
            assert start_us < found.end_us <= (end_us or found.end_us)
            assert list(found.times_us) == sorted(found.times_us)
            assert all(start_us <= time < found.end_us for time in found.times_us)
    assert sorted(answered) == list(range(len(spans))), f"answers to {answered}"
