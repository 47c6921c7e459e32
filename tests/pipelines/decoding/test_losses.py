"""Videos with zeroed or missing parts: no accepted frame is wrong."""

import os
import random

import numpy as np
import pytest

from pipelines.decoding import video
from pipelines.decoding.chains import chain
from pipelines.decoding.video_file import Failure

SPANS = [(i * 500_000, (i + 1) * 500_000) for i in range(12)]
CODECS = {
    "h264": "-c:v libx264 -g 25 -bf 3",
    "mpeg4": "-c:v mpeg4 -g 25 -bf 2 -q:v 3",
    "mpeg2": "-c:v mpeg2video -g 15 -bf 2 -q:v 3",
    "mjpeg": "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p",
    "msmpeg4": "-c:v msmpeg4 -g 30 -q:v 3",
    "wmv2": "-c:v wmv2 -g 30 -q:v 3",
    "flv1": "-c:v flv -g 30 -q:v 3",
    "vp8": "-c:v libvpx -g 40 -b:v 500k",
}
CONTAINERS = {
    "avi": "avi",
    "flv": "flv",
    "mpg": "mpeg",
    "asf": "asf",
    "webm": "matroska,webm",
}
# These seeds give damage without any error message of demuxer or decoder.
DAMAGED = [
    *(("mpeg4.avi", "cut", 3), ("mjpeg.avi", "cut", 1), ("msmpeg4.avi", "cut", 2)),
    *(("h264.flv", "zeroed", 4), ("flv1.flv", "zeroed", 1), ("wmv2.asf", "cut", 5)),
    *(("h264.mpg", "zeroed", 2), ("vp8.webm", "zeroed", 2), ("mpeg2.ts", "zeroed", 3)),
]


def damaged(data: bytes, how: str, chance: random.Random) -> bytes:
    """Zero or remove a part of the data."""
    place = chance.randrange(len(data) // 4, len(data) * 8 // 10)
    size = chance.choice([512, 2048, 4096, len(data) // 10])
    return data[:place] + bytes(size if how == "zeroed" else 0) + data[place + size :]


@pytest.fixture(scope="module")
def whole(films):
    """Return whole(name), which returns a video and its spans' frames."""
    known = {}

    def make(name):
        if name not in known:
            codec, _, container = name.partition(".")
            form = ["-f", "vob"] if container == "mpg" else []
            path = films.make(f"whole.{name}", *CODECS[codec].split(), *form)
            known[name] = path, films.decode(path, *SPANS)
        return known[name]

    return make


@pytest.mark.parametrize(("name", "how", "seed"), DAMAGED)
def test_no_frame_is_wrong(films, whole, name, how, seed):
    path, sound = whole(name)
    chance = random.Random(f"{name} {how} {seed}")
    container = name.partition(".")[2]
    for _ in range(3):
        copy = films.folder / f"damaged.{container}"
        copy.write_bytes(damaged(path.read_bytes(), how, chance))
        found = films.decode(copy, *SPANS)
        assert any(isinstance(result, Failure) for result in found)
        assert isinstance(found[0], video.Frames)
        for span, good, result in zip(SPANS, sound, found, strict=True):
            if isinstance(result, video.Frames):
                apart = np.abs(good.pixels.astype(int) - result.pixels).mean(axis=(1, 2, 3))
                assert apart.max() < 6, span


@pytest.mark.parametrize("name", ["h264.flv", "h264.mpg", "wmv2.asf", "vp8.webm"])
def test_an_undamaged_video_has_an_unbroken_chain(films, whole, name):
    path, sound = whole(name)
    assert all(isinstance(result, video.Frames) for result in sound)
    with open(path, "rb") as file:
        units = chain(file.fileno(), CONTAINERS[name.partition(".")[2]])
        assert units is not None and not units.is_broken(0, os.path.getsize(path))
        assert file.tell() == 0
