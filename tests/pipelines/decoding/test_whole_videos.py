"""Clips that end with their videos, whose lengths are known only after decoding."""

import io
from typing import Any

import av
import numpy as np
import pytest

from pipelines.decoding import video
from pipelines.decoding.spans import TO_THE_END, frame_times_us
from pipelines.decoding.video_file import Failure

WHOLE = (0, TO_THE_END)


def decode(path, *spans, decoder, frames=8) -> list[Any]:
    found = dict(
        video.decode(
            str(path),
            spans,
            min_us=[1] * len(spans),
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
def test_clips_to_the_end_end_with_the_video(folder, decoder, name, length_us):
    (found,) = decode(folder / name, WHOLE, decoder=decoder)
    assert isinstance(found, video.Frames), found
    # The last frame, number 49, is shown for its stated duration or the usual one.
    assert length_us - 1000 <= found.end_us <= length_us + 300_000
    assert found.times_us == frame_times_us(0, found.end_us, 8)
    (same,) = decode(folder / name, (0, found.end_us), decoder=decoder)
    assert np.array_equal(found.pixels, same.pixels)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize(
    ("name", "reason"), [("broken_off.mp4", "video_truncated"), ("text.mp4", "video_undecodable")]
)
def test_an_unknown_end_has_a_reason(folder, decoder, name, reason):
    found = decode(folder / name, WHOLE, (0, 10_000), decoder=decoder)
    assert [type(one) for one in found] == [Failure, Failure]
    assert {one.reason for one in found} == {reason}


def mpeg4_in_avi(path, frames, packed):
    """MPEG-4 with B-frames; frame n is of grey 20 + 10·n. Packed: as XviD and DivX did.

    There a B-frame is in one packet with the frame before it, and the next packet is a mere marker.
    ffmpeg reads that and does not write it, so its packets are put together here.
    """
    plain = io.BytesIO()
    with av.open(plain, "w", format="avi") as out:
        stream: Any = out.add_stream("mpeg4", rate=25, options={"bf": "1", "b_strategy": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(frames):
            grey = np.full((48, 64, 3), 10 * number + 20, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        out.mux(stream.encode(None))
    if not packed:
        path.write_bytes(plain.getvalue())
        return
    plain.seek(0)
    with av.open(plain, "r") as source, av.open(str(path), "w", format="avi") as out:
        stream = source.streams.video[0]
        copy: Any = out.add_stream_from_template(stream)
        first, *rest = (bytes(packet) for packet in source.demux(stream) if packet.size)
        picture = first.index(b"\x00\x00\x01\xb6")
        packer = b"\x00\x00\x01\xb2DivX503b1393p"
        marker = b"\x00\x00\x01\xb6\x50\x4f"
        # I P B P B … in order of decoding becomes I, P+B, marker, P+B, marker …
        written = [first[:picture] + packer + first[picture:]]
        for forward, between in zip(rest[::2], rest[1::2], strict=True):
            written += [forward + between, marker]
        for number, data in enumerate(written):
            packet: Any = av.Packet(data)
            packet.stream, packet.time_base = copy, stream.time_base
            packet.dts = packet.pts = number
            packet.is_keyframe = number == 0
            out.mux(packet)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("packed", [False, True])
def test_avi_with_b_frames(tmp_path, decoder, packed):
    mpeg4_in_avi(tmp_path / "b.avi", 21, packed)
    (found,) = decode(tmp_path / "b.avi", WHOLE, decoder=decoder, frames=21)
    assert isinstance(found, video.Frames), found
    assert 840_000 <= found.end_us <= 880_000
    greys = found.pixels[:, 20, 20, 0].astype(int)
    # All frames are in order. Their times, which the file does not state, may be a frame late.
    assert (np.diff(greys) > -2).all()
    assert abs(greys - [10 * n + 20 for n in range(21)]).max() <= 12
    (part,) = decode(tmp_path / "b.avi", (400_000, 800_000), decoder=decoder, frames=10)
    greys = part.pixels[:, 20, 20, 0].astype(int)
    assert abs(greys - [10 * n + 20 for n in range(10, 20)]).max() <= 12
