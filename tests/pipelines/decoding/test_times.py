"""Presentation times with edit lists, ends of files and wrapping clocks."""

import ctypes

import av
import numpy as np
import pytest

from pipelines.decoding import video
from pipelines.decoding.pyav_packet import unhidden
from pipelines.decoding.spans import TO_THE_END, frame_times_us
from pipelines.decoding.video_file import Failure

FRAME_US = 40_000
TICKS = 512  # duration of a frame in the edited MP4s
LEAD = 1024  # two frames, in a medium with B-frames
EDITS = {
    "end": [(3000, LEAD)],
    "inside": [(2520, LEAD + 37 * TICKS)],
    "late": [(1000, -1), (3000, LEAD)],
    "two": [(1000, LEAD + 10 * TICKS), (2000, LEAD + 70 * TICKS)],
    "backwards": [(1000, LEAD + 60 * TICKS), (1000, LEAD + 10 * TICKS), (480, LEAD + 12 * TICKS)],
    "repeated": [(400, LEAD)] * 5,
}
CODECS = {
    "h264": "-c:v libx264 -g 25 -bf 3",
    "h264-open": "-c:v libx264 -bf 3 -x264-params open-gop=1:keyint=24:scenecut=0",
    "hevc": "-c:v libx265 -x265-params log-level=none:keyint=25:bframes=4",
    "mpeg4": "-c:v mpeg4 -g 25 -bf 2 -q:v 3",
}


def end_us(films, path, decoder):
    (found,) = films.decode(path, (0, TO_THE_END), decoder=decoder, min_us=[1])
    assert isinstance(found, video.Frames), found
    return found.end_us


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("codec", ["h264", "h264-open", "mpeg4"])
def test_edit_lists_are_applied_as_by_ffmpeg(films, codec, edit):
    film = films.make(f"{codec}.edits.mp4", *CODECS[codec].split())
    path = films.edited(film, f"{codec}.{edit}.mp4", *EDITS[edit])
    truth = films.truth(path)
    last_us = truth.times_us[-1]
    spans = [(0, 400_000), (300_000, 900_000), (950_000, 1_250_000), (last_us - 500_000, last_us)]
    films.check(path, spans, truth=truth)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("edit", ["end", "inside", "backwards", "repeated"])
def test_hidden_packets_do_not_count_towards_the_end(films, codec, edit, decoder):
    film = films.make(f"{codec}.edits.mp4", *CODECS[codec].split())
    path = films.edited(film, f"{codec}.{edit}.mp4", *EDITS[edit])
    truth = films.truth(path)
    ends_us = truth.times_us[-1] + FRAME_US
    assert abs(ends_us - 1000 * sum(length for length, _ in EDITS[edit])) <= 2 * FRAME_US
    assert end_us(films, path, decoder) == ends_us
    (cut,) = films.decode(path, (1_000_000, 3_500_000), decoder=decoder, min_us=[900_000])
    assert isinstance(cut, video.Frames), cut
    assert cut.end_us == ends_us
    assert films.numbers(cut) == truth.shown(1_000_000, cut.end_us, 5)


@pytest.mark.parametrize("codec", ["h264-open", "mpeg4"])
@pytest.mark.parametrize("parts", [1, 2])
def test_damage_to_hidden_frames_is_ignored(films, codec, parts):
    """Leading B-frames of the first key frame are shown before it, so they are cut off."""
    film = films.make(f"{codec}.edits.mp4", *CODECS[codec].split())
    first = {"h264-open": 48, "mpeg4": 51}[codec]
    edit = [(1000, LEAD + first * TICKS), (1000, LEAD + (first + 25) * TICKS)][:parts]
    path = films.edited(film, f"{codec}.hidden.{parts}.mp4", *edit)
    truth = films.truth(path)
    data = bytearray(path.read_bytes())
    with av.open(str(film)) as opened:  # The media data are at the same offset.
        (hidden,) = (p for p in opened.demux(video=0) if p.pts == (first - 1) * TICKS)
        start, size = hidden.pos or 0, hidden.size
    data[start + 8 : start + size] = bytes(255 - (n * 37) % 251 for n in range(size - 8))
    path.write_bytes(data)
    films.check(path, [(0, 400_000), (100_000, 900_000), (300_000, 340_000)], truth=truth)


def test_a_hidden_packet_ends_with_zeros_when_it_is_decoded(films):
    film = films.make("h264.edits.mp4", *CODECS["h264"].split())
    with av.open(str(film)) as opened:
        for packet in opened.demux(video=0):
            if packet.size:
                copy = unhidden(packet)
                assert bytes(copy) == bytes(packet)
                behind = ctypes.string_at(copy.buffer_ptr + copy.size, 64)
                assert behind == bytes(64)


UNEVEN = {
    "a gap": ("setpts='(N*0.04+gte(N,30)*58)/TB'", 64_000_000),
    "a gap at the end": ("setpts='(N*0.04+gte(N,148)*20)/TB'", 26_000_000),
    "ever slower": ("setpts='(N*N*0.02)/TB'", 444_060_000),
    "three frames": ("select='lt(n,3)',setpts=N*10/TB", 20_040_000),
}


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("kind", UNEVEN)
def test_the_end_of_uneven_films_with_b_frames(films, kind, container, decoder):
    filters, length_us = UNEVEN[kind]
    options = ("-vf", f"{filters},format=yuv420p", "-fps_mode", "vfr", "-enc_time_base", "1/1000")
    name = f"uneven.{kind.replace(' ', '-')}.{container}"
    path = films.make(name, *options, "-c:v", "libx264", "-bf", "3")
    assert end_us(films, path, decoder) == length_us
    beyond = (length_us + 1_000_000, length_us + 2_000_000)
    (past,) = films.decode(path, beyond, decoder=decoder)
    assert isinstance(past, Failure)
    assert past.reason in ("span_past_end", "video_truncated")


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("offset", ["95438", "95440", "95443.7"])
def test_a_wrapping_clock(films, codec, offset, decoder):
    options = ("-c:v", codec, "-g", "25", "-output_ts_offset", offset)
    path = films.make(f"wrap.{codec}.{offset}.ts", *options)
    assert end_us(films, path, decoder) == 6_000_000
    films.check(
        path, [(0, 400_000), (2_000_000, 2_400_000), (5_000_000, 6_000_000)], decoder=decoder
    )


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("container", ["flv", "ts", "mkv", "avi", "asf", "mp4"])
def test_a_single_frame(films, container, decoder):
    path = films.make(f"single.{container}", "-c:v", "libx264", "-frames:v", "1")
    assert end_us(films, path, decoder) == 40_000
    (found,) = films.decode(path, (0, 40_000), decoder=decoder)
    assert films.numbers(found) == [0] * 5


@pytest.mark.parametrize("decoder", [*video.DECODERS])
def test_overlapping_spans_of_a_container_without_an_index(films, decoder):
    path = films.make("overlapping.ts", "-c:v", "libx264", "-g", "50")
    films.check(path, [(200_000, 5_900_000), (460_000, 470_000), (1, 20)], decoder=decoder)


@pytest.mark.parametrize("decoder", [*video.DECODERS])
@pytest.mark.parametrize("container", ["ts", "mkv", "mp4"])
def test_sound_before_the_first_frame(films, container, decoder):
    """A file begins with its first stream, as in video players."""
    film = films.make("h264.delayed.mp4", *CODECS["h264"].split())
    path = films.folder / f"delayed.{container}"
    tone = ("-f", "lavfi", "-i", "sine=440:duration=6")
    maps = ("-map", "2:v", "-map", "1:a", "-c:v", "copy", "-c:a", "mp2")
    delayed = ("-itsoffset", "0.7", "-i", film)
    assert not films.run(*tone, *delayed, *maps, path, source=film)
    with av.open(str(path)) as opened:
        stream = opened.streams.video[0]
        assert stream.start_time is not None and stream.time_base is not None
        begins_us = int(stream.start_time * stream.time_base * 1_000_000) - (opened.start_time or 0)
    assert 650_000 < begins_us < 750_000
    spans = [(0, 200_000), (1_000_000, 2_000_000), (5_000_000, 6_000_000)]
    for span, found in zip(spans, films.decode(path, *spans, decoder=decoder), strict=True):
        wanted = [(at - begins_us) // FRAME_US for at in frame_times_us(*span, 5)]
        apart = np.subtract(films.numbers(found), np.maximum(wanted, 0))
        assert abs(apart).max() <= 1 and (apart == 0).sum() >= 4, (span, apart)
