"""Clips that end with their videos, whose lengths only decoding tells."""

from typing import Any

import numpy as np
import pytest

from pipelines import video
from pipelines.clip_request import TO_THE_END
from pipelines.decoding.spans import frame_times_us
from pipelines.video_file import Failure

WHOLE = (0, TO_THE_END)


def decode(path, *spans, decoder, frames=8) -> list[Any]:
    found = dict(
        video.decode(
            str(path),
            spans,
            least_us=[1] * len(spans),
            frames=frames,
            short_side=48,
            decoder=decoder,
        )
    )
    assert sorted(found) == list(range(len(spans)))
    return [found[i] for i in range(len(spans))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_video):
    folder = tmp_path_factory.mktemp("whole")
    make_video(folder / "two.mp4", seconds=2, sound=True)
    make_video(folder / "uneven.mkv", seconds=2, filters="select='not(mod(n,7))'")
    make_video(folder / "one_frame.mp4", seconds=0.04)
    make_video(folder / "faststart.mp4", options=["-movflags", "+faststart", "-crf", "0"])
    data = (folder / "faststart.mp4").read_bytes()
    (folder / "broken_off.mp4").write_bytes(data[: len(data) * 6 // 10])
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize(
    ("name", "length_us"),
    [("two.mp4", 2_000_000), ("uneven.mkv", 2_000_000), ("one_frame.mp4", 40_000)],
)
def test_the_end_is_the_videos(folder, decoder, name, length_us):
    (found,) = decode(folder / name, WHOLE, decoder=decoder)
    assert isinstance(found, video.Frames), found
    # The last of uneven frames, number 49, is shown as long as it says or as is usual.
    assert length_us - 1000 <= found.end_us <= length_us + 300_000
    assert found.times_us == frame_times_us(0, found.end_us, 8)
    (same,) = decode(folder / name, (0, found.end_us), decoder=decoder)
    assert np.array_equal(found.pixels, same.pixels)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize(
    ("name", "reason"), [("broken_off.mp4", "video_truncated"), ("text.mp4", "video_undecodable")]
)
def test_without_an_end_there_is_a_reason(folder, decoder, name, reason):
    found = decode(folder / name, WHOLE, (0, 10_000), decoder=decoder)
    assert [type(one) for one in found] == [Failure, Failure]
    assert {one.reason for one in found} == {reason}
