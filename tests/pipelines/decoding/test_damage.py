"""Damaged, encrypted and cropped videos, and ones with wrong key-frame flags."""

import struct

import numpy as np
import pytest

from pipelines.decoding import video
from pipelines.decoding.spans import TO_THE_END
from pipelines.decoding.video_file import Failure

SPANS = [(i * 500_000, (i + 1) * 500_000) for i in range(12)]
CODECS = {
    "h264": "-c:v libx264 -g 25 -bf 3",
    "hevc": "-c:v libx265 -x265-params log-level=none:keyint=25:bframes=4",
    "mpeg4": "-c:v mpeg4 -g 25 -bf 2 -q:v 3",
    "mpeg2": "-c:v mpeg2video -g 15 -bf 2 -q:v 3",
    "av1": "-c:v libsvtav1 -g 40 -preset 12",
    "vp8": "-c:v libvpx -g 40 -b:v 500k",
}
ZEROED = [
    *("h264.mp4", "h264.mkv", "h264.ts", "h264.avi", "h264.mov"),
    *("hevc.mp4", "hevc.mkv", "hevc.ts", "mpeg4.mp4", "mpeg4.avi", "mpeg2.ts", "mpeg2.avi"),
    *("av1.mp4", "av1.mkv", "vp8.webm"),
]


USUAL_BY_FFMPEG = (
    "h264.mp4",
    "h264.ts",
    "mpeg4.avi",
    "av1.mkv",
)  # Other containers are slow tests.
ZEROED_BY = [
    *((name, "pyav") for name in ZEROED),
    *((name, "ffmpeg") for name in USUAL_BY_FFMPEG),
    *(
        pytest.param(name, "ffmpeg", marks=pytest.mark.slow)
        for name in ZEROED
        if name not in USUAL_BY_FFMPEG
    ),
]


@pytest.mark.parametrize(("name", "decoder"), ZEROED_BY)
def test_a_zeroed_middle_gives_no_wrong_frame(films, name, decoder):
    codec, _, container = name.partition(".")
    path = films.make(name, *CODECS[codec].split())
    data = bytearray(path.read_bytes())
    first, last = len(data) * 5 // 10, len(data) * 6 // 10
    data[first:last] = bytes(last - first)
    damaged = films.folder / f"zeroed.{name}"
    damaged.write_bytes(data)
    sound = films.decode(path, *SPANS, decoder=decoder)
    found = films.decode(damaged, *SPANS, decoder=decoder)
    rejected = 0
    for span, whole, part in zip(SPANS, sound, found, strict=True):
        assert isinstance(whole, video.Frames)
        if isinstance(part, Failure):
            rejected += 1
            assert part.reason in ("video_undecodable", "video_truncated"), part
        else:
            apart = np.abs(whole.pixels.astype(int) - part.pixels).mean(axis=(1, 2, 3))
            assert apart.max() < 6, (container, span)
    assert 1 <= rejected <= 10
    assert isinstance(found[0], video.Frames)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
def test_damage_is_reported(films, decoder):
    path = films.make(f"told.{decoder}.mp4", *CODECS["h264"].split())
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) * 6 // 10] = bytes(len(data) * 6 // 10 - len(data) // 2)
    path.write_bytes(data)
    found = films.decode(path, *SPANS, decoder=decoder)
    told = [result.message for result in found if isinstance(result, Failure)]
    assert told and all(message.startswith("damaged frames: ") for message in told)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("codec", ["h264", "av1", "mpeg4"])
def test_an_encrypted_video_is_refused(films, codec, decoder):
    clear = films.make(f"clear.{codec}.mp4", *CODECS[codec].split())
    path = films.folder / f"encrypted.{codec}.mp4"
    keys = ("-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb")
    names = ("-encryption_kid", "a7e61c373e219033c21091fa607bf3b8")
    scheme = ("-encryption_scheme", "cenc-aes-ctr")
    assert not films.run("-c", "copy", *scheme, *keys, *names, path, source=clear)
    for result in films.decode(path, (0, 400_000), (0, TO_THE_END), decoder=decoder, min_us=[1, 1]):
        told = "the video is encrypted: decrypt it first"
        assert result == Failure("video_undecodable", told)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
def test_wrong_key_frame_flags(films, change_box, decoder):
    """All packets of this MPEG-4 video are marked as key frames."""
    path = films.make(f"keys.{decoder}.mp4", "-c:v", "mpeg4", "-g", "250", "-q:v", "3")
    truth = films.truth(path)
    data = path.read_bytes()
    boxes = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stss"]
    every = struct.pack(f">II{150}I", 0, 150, *range(1, 151))
    path.write_bytes(change_box(data, boxes, lambda _: every))
    spans = [(0, 400_000), (2_000_000, 2_400_000), (5_000_000, 5_800_000)]
    films.check(path, spans, truth=truth, decoder=decoder)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
def test_a_video_without_an_initial_key_frame(films, decoder):
    whole = films.make("whole.ts", "-c:v", "mpeg2video", "-g", "50", "-q:v", "3")
    data = whole.read_bytes()
    cut = len(data) // 4 // 188 * 188
    path = films.folder / "begun.ts"
    path.write_bytes(data[cut:])
    spans = [(i * 200_000, i * 200_000 + 200_000) for i in range(20)]
    found = films.decode(path, *spans, decoder=decoder)
    told = [i for i, result in enumerate(found) if isinstance(result, Failure)]
    assert told == [*range(len(told))] and len(told) < 12  # before the first key frame
    first = films.numbers(found[len(told)])[0]
    for i, result in enumerate(found[len(told) :]):
        apart = np.subtract(films.numbers(result), [first + 5 * i + j for j in range(5)])
        assert abs(apart).max() <= 1


@pytest.mark.parametrize("decoder", [*video.DECODERS])
def test_a_second_header_of_flv(films, decoder):
    """The decoder's settings change within the video, as when a broadcast restarts."""
    films.make("one.flv", "-c:v", "libx264", "-g", "25", "-t", "3")
    films.make("two.flv", "-c:v", "libx264", "-g", "25", "-profile:v", "baseline", "-ss", "3")
    first, second = ((films.folder / name).read_bytes() for name in ("one.flv", "two.flv"))
    path = films.folder / "both.flv"
    path.write_bytes(first + moved_flv(second[13:], 3000))
    truth = films.truth(path)
    assert len(truth.times_us) >= 145
    spans = [(0, 400_000), (2_500_000, 3_500_000), (4_000_000, 5_500_000), (1_000_000, 1_040_000)]
    films.check(path, spans, decoder=decoder, truth=truth)


def moved_flv(tags: bytes, by_ms: int) -> bytes:
    """Return an FLV whose video tags are delayed."""
    moved, place = b"", 0
    while place + 11 <= len(tags):
        size = int.from_bytes(tags[place + 1 : place + 4], "big")
        if tags[place] == 9:
            time_ms = int.from_bytes(tags[place + 4 : place + 7], "big") + by_ms
            head = tags[place : place + 4] + time_ms.to_bytes(3, "big")
            moved += head + tags[place + 7 : place + 15 + size]
        place += 15 + size
    return moved


@pytest.mark.parametrize("decoder", [*video.DECODERS])
def test_the_containers_crop_is_applied(films, change_box, decoder):
    path = films.make(f"crop.{decoder}.mp4", "-c:v", "libx264", "-g", "25")
    # The left half without the lowest quarter: sizes and offsets of the centre.
    clap = struct.pack(">4I2i", 48, 1, 48, 1, -24, 1) + struct.pack(">iI", -8, 1)
    boxes = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1", b"clap"]
    path.write_bytes(change_box(path.read_bytes(), boxes, lambda _: clap))
    (found,) = films.decode(path, (2_000_000, 2_400_000), decoder=decoder)
    assert isinstance(found, video.Frames)
    assert found.pixels.shape == (5, 64, 64, 3)
    blocks = found.pixels.mean(-1)[:, 12:52].mean(1)  # [frame, 64]: four blocks of 16 columns
    bits = [[frame[16 * i + 4 : 16 * i + 12].mean() > 135 for i in range(4)] for frame in blocks]
    assert [sum(bit << i for i, bit in enumerate(row)) for row in bits] == [
        n % 16 for n in (51, 53, 55, 57, 59)
    ]


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("sound", ["aac", "ac3", "mp2"])
def test_damage_to_the_sound_is_ignored(films, sound, decoder):
    path = films.folder / f"{sound}.{decoder}.ts"
    tone = ("-f", "lavfi", "-i", "sine=440:duration=6", "-map", "0:v", "-map", "1:a")
    video_options = CODECS["h264"].split()
    assert not films.run(
        *tone, *video_options, "-pix_fmt", "yuv420p", "-c:a", sound, path, source=films.source
    )
    whole = films.decode(path, (0, 2_000_000), (1_200_000, 1_400_000), decoder=decoder)
    data = bytearray(path.read_bytes())
    packets = [
        i for i in range(0, len(data), 188) if data[i + 1] & 0x5F == 0x01 and data[i + 2] == 0x01
    ]
    for i in packets[:12]:  # a packet of PID 0x101, the sound, within a frame
        data[i + 20 : i + 188] = bytes((37 * i + 7 * n) % 251 for n in range(168))
    path.write_bytes(data)
    damaged = films.decode(path, (0, 2_000_000), (1_200_000, 1_400_000), decoder=decoder)
    for before, after in zip(whole, damaged, strict=True):
        assert isinstance(before, video.Frames) and isinstance(after, video.Frames), after
        assert (before.pixels == after.pixels).all()


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("left", [2, 32])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_streams_own_crop_is_exact_on_the_left(films, codec, left, decoder):
    """Tools that cut black bars without encoding anew write such crops."""
    plain = films.make(f"{codec}.mp4", *CODECS[codec].split())
    path = films.folder / f"left{left}.{codec}.mp4"
    cut = ("-c", "copy", "-bsf:v", f"{codec}_metadata=crop_left={left}")
    assert not films.run(*cut, path, source=plain)
    span = (2_000_000, 2_400_000)
    (whole,), (found,) = (films.decode(one, span, decoder=decoder) for one in (plain, path))
    assert isinstance(whole, video.Frames) and isinstance(found, video.Frames), found
    assert found.pixels.shape[2] == whole.pixels.shape[2] - left
    # The colours of the first column were interpolated with pixels that are cut off.
    same = [np.int16(pixels) for pixels in (found.pixels[:, :, 2:], whole.pixels[:, :, left + 2 :])]
    assert np.abs(same[0] - same[1]).max() <= (1 if decoder == "ffmpeg" else 0)
