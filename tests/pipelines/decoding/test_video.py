"""Decoding of videos whose frame n has grey n."""

import os
import subprocess
import sys
import time

import hypothesis
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.decoding import ffmpeg, video, with_ffmpeg
from pipelines.decoding.spans import frame_times_us
from pipelines.decoding.video_file import Failure
from pipelines.sources.reject_reasons import REASONS

FRAME_US = 40_000  # 25 fps


@pytest.fixture(scope="module", params=[*video.DECODERS])
def by(request):
    return request.param


def decode(path, *spans, decoder, frames=8, short_side=48, **options):
    found = video.decode(
        str(path), spans, frames=frames, short_side=short_side, decoder=decoder, **options
    )
    results = dict(found)
    assert sorted(results) == list(range(len(spans)))
    return [results[i] for i in range(len(spans))]


def frames_of(result) -> video.Frames:
    assert isinstance(result, video.Frames), result
    return result


def failure_of(result) -> Failure:
    assert isinstance(result, Failure), result
    return result


def shown(result):
    """Return the number of each frame from the grey of its pixels."""
    frames = frames_of(result)
    assert np.ptp(frames.pixels.reshape(len(frames.pixels), -1), axis=1).max() == 0
    return frames.pixels[:, 0, 0, 0].tolist()


def on_screen(presented, start_us, end_us, frames):
    """Return frame numbers by presentation time, in exact arithmetic."""
    return [
        max(n for n in presented if 2 * frames * n * FRAME_US <= 2 * frames * start_us + odd)
        for odd in ((2 * i + 1) * (end_us - start_us) for i in range(frames))
    ]


ALL = range(100)
UNEVEN = [n for n in ALL if n % 7 == 0 or (n % 5 == 0 and n < 40)]
SLOW = [n for n in ALL if n % 45 == 0]
UNEVEN_FILTER = "select='not(mod(n,7))+not(mod(n,5))*lt(n,40)'"


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video, ffmpeg_run):
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "constant.mp4")
    make_video(folder / "uneven.mp4", filters=UNEVEN_FILTER)
    make_video(folder / "uneven.mkv", filters=UNEVEN_FILTER)  # times in milliseconds
    make_video(
        folder / "uneven.ts", filters=UNEVEN_FILTER
    )  # Without an index, seeks are inaccurate.
    make_video(folder / "slow.mp4", filters="select='not(mod(n,45))'")
    make_video(folder / "offset.ts", options=["-output_ts_offset", "5"])
    make_video(folder / "offset.mkv", options=["-output_ts_offset", "5"])
    ffmpeg_run(
        *("-i", folder / "constant.mp4", "-f", "lavfi", "-i", "sine=d=4.5"),
        *("-c:v", "copy", "-c:a", "aac", folder / "long_sound.mp4"),
    )
    make_video(folder / "bframes.mp4", options=["-bf", "3", "-x264-params", "b-adapt=0"])
    (folder / "constant.webm").write_bytes((folder / "constant.mp4").read_bytes())
    for degrees in (90, 180, 270):
        ffmpeg_run(
            *("-display_rotation", degrees, "-i", folder / "constant.mp4"),
            *("-c", "copy", folder / f"rotated{degrees}.mp4"),
        )
    make_video(folder / "wide_pixels.mp4", filters="setsar=3/2")
    make_video(folder / "odd.mp4", filters="scale=51:37,setsar=1")
    make_video(folder / "ten_bits.mkv", options=["-pix_fmt", "yuv444p10le"])
    make_video(folder / "faststart.mp4", options=["-movflags", "+faststart", "-crf", "0"])
    whole = (folder / "faststart.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    whole = (folder / "constant.mp4").read_bytes()
    (folder / "no_index.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    ffmpeg_run("-f", "lavfi", "-i", "sine=d=2", "-c:a", "aac", folder / "sound.mp4")
    make_video(folder / "one_frame.mp4", seconds=0.04)
    (folder / "zeros.mp4").write_bytes(bytes(10_000))
    (folder / "text.mp4").write_text("hello\n" * 100)
    concat = "ffconcat version 1.0\nfile constant.mp4\n"
    (folder / "playlist.mp4").write_text(concat)
    (folder / "stream.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nconstant.mp4\n#EXT-X-ENDLIST\n"
    )
    ffmpeg_run("-f", "lavfi", "-i", "color=s=64x48", "-frames:v", "1", folder / "picture.png")
    (folder / "picture.png").rename(folder / "picture.mp4")
    return folder


@pytest.mark.parametrize(
    ("name", "presented"),
    [
        ("constant.mp4", ALL),
        ("uneven.mp4", UNEVEN),
        ("uneven.mkv", UNEVEN),
        ("slow.mp4", SLOW),
        ("offset.ts", ALL),
        ("offset.mkv", ALL),
        ("bframes.mp4", ALL),
        ("constant.webm", ALL),
        ("ten_bits.mkv", ALL),
    ],
)
def test_each_frame_is_the_one_on_screen(videos, name, presented, by):
    spans = [
        (0, 3_600_000),
        (0, 640_000),  # requested times that equal frame times
        (1_000_000, 2_280_000),
        (1_234_567, 1_934_569),
        (2_000_001, 3_599_999),
        (3_000_000, 3_000_020),  # shorter than a frame
    ]
    for span, frames in zip(spans, decode(videos / name, *spans, decoder=by), strict=True):
        assert shown(frames) == on_screen(presented, *span, 8), span
        assert frames_of(frames).times_us == frame_times_us(*span, 8)


@given(
    start=st.integers(0, 3_000_000),
    length=st.integers(1, 600_000),
    frames=st.integers(1, 20),
    name=st.sampled_from(["uneven.mp4", "uneven.mkv", "uneven.ts"]),
)
def test_any_span(videos, name, start, length, frames, by):
    (found,) = decode(videos / name, (start, start + length), frames=frames, decoder=by)
    assert shown(found) == on_screen(UNEVEN, start, start + length, frames)


def test_distant_spans_take_several_passes(tmp_path, make_video, by):
    path = make_video(tmp_path / "long.mp4", seconds=10)
    spans = [(9_000_000, 9_400_000), (0, 400_000), (200_000, 700_000), (9_000_000, 9_800_000)]
    assert len(with_ffmpeg.passes(spans)) == 2
    for span, frames in zip(spans, decode(path, *spans, decoder=by), strict=True):
        assert shown(frames) == on_screen(range(250), *span, 8)


@given(
    st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 10**7)), max_size=60).map(
        lambda pairs: [(start, start + length) for start, length in pairs]
    )
)
def test_passes_cover_every_span_once(spans):
    groups = with_ffmpeg.passes(spans)
    assert sorted(i for group in groups for i in group) == list(range(len(spans)))
    assert all(len(group) <= 16 for group in groups)


@given(st.integers(0, 10**12), st.integers(1, 10**9), st.integers(1, 64))
def test_frame_times_are_ordered_within_the_span(start, length, frames):
    times = frame_times_us(start, start + length, frames)
    assert len(times) == frames and times == sorted(times)
    assert all(start <= time < start + length for time in times)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("constant.mp4", (24, 32)),
        ("rotated90.mp4", (32, 24)),
        ("rotated180.mp4", (24, 32)),
        ("rotated270.mp4", (32, 24)),
        ("wide_pixels.mp4", (24, 48)),
        ("odd.mp4", (24, 33)),
    ],
)
def test_short_side_after_rotation_and_pixel_aspect(videos, name, shape, by):
    (frames,) = decode(videos / name, (0, 1_000_000), short_side=24, decoder=by)
    assert frames_of(frames).pixels.shape == (8, *shape, 3)


def test_rotation_turns_the_picture(tmp_path, ffmpeg_run, by):
    upright, turned = tmp_path / "upright.mp4", tmp_path / "turned.mp4"
    half = "color=white:s=64x48:d=1,drawbox=w=32:h=48:color=black:t=fill"
    ffmpeg_run("-f", "lavfi", "-i", half, upright)
    ffmpeg_run("-display_rotation", "90", "-i", upright, "-c", "copy", turned)
    (frames,) = decode(turned, (0, 1_000_000), frames=1, decoder=by)
    (picture,) = frames_of(frames).pixels
    top, bottom = picture[:28].mean(), picture[36:].mean()
    assert top > 240 and bottom < 15  # 90° counter-clockwise: the right side is on top


def test_a_change_of_size_within_the_stream(tmp_path, make_video, by):
    large = make_video(tmp_path / "large.ts", filters="trim=end=2")
    small = make_video(tmp_path / "small.ts", filters="trim=start=2,scale=32:24:flags=neighbor")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(large.read_bytes() + small.read_bytes())
    (frames,) = decode(joined, (1_000_000, 3_000_000), decoder=by)
    assert shown(frames) == on_screen(ALL, 1_000_000, 3_000_000, 8)


ENDS = ["constant.mp4", "offset.mkv", "offset.ts", "bframes.mp4", "ten_bits.mkv", "long_sound.mp4"]


@pytest.mark.parametrize("name", ENDS)
def test_a_span_is_cut_where_the_video_ends(videos, name, by):
    spans = [(3_000_000, 4_900_000), (3_200_000, 4_900_000), (1_000_000, 2_000_000)]
    last, *others = decode(videos / name, *spans, min_us=[950_000, 850_000, 500_000], decoder=by)
    assert shown(last) == on_screen(ALL, 3_000_000, 4_000_000, 8)
    assert frames_of(last).times_us == frame_times_us(3_000_000, 4_000_000, 8)
    assert [failure_of(others[0]).reason, frames_of(others[1]).end_us] == [
        "span_past_end",
        2_000_000,
    ]
    assert frames_of(last).end_us == 4_000_000


def test_sound_past_the_last_frame_is_ignored(videos, by):
    (frames,) = decode(
        videos / "long_sound.mp4", (3_000_000, 4_400_000), min_us=[700_000], decoder=by
    )
    assert shown(frames) == on_screen(ALL, 3_000_000, 4_000_000, 8)


def test_the_end_of_a_truncated_file_is_unknown(videos, by):
    for span in ((500_000, 3_800_000), (500_000, 4_900_000)):
        (failure,) = decode(videos / "truncated.mp4", span, min_us=[1], decoder=by)
        failure_of(failure)


@hypothesis.settings(max_examples=30)
@given(
    start=st.integers(0, 5_000_000),
    length=st.integers(1, 5_000_000),
    frames=st.integers(1, 20),
    minimum=st.integers(1, 3_000_000),
)
def test_a_cut_span_has_the_frames_of_its_times(videos, start, length, frames, minimum, by):
    (found,) = decode(
        videos / "constant.mp4",
        (start, start + length),
        frames=frames,
        min_us=[minimum],
        decoder=by,
    )
    if frame_times_us(start, start + length, frames)[-1] < 4_000_000:
        end = start + length
    elif minimum <= 4_000_000 - start:
        end = 4_000_000
    else:
        assert failure_of(found).reason == "span_past_end"
        return
    assert shown(found) == on_screen(ALL, start, end, frames)
    assert frames_of(found).end_us == end
    assert frames_of(found).times_us == frame_times_us(start, end, frames)


@pytest.mark.parametrize(
    ("name", "span", "reason"),
    [
        ("constant.mp4", (5_000_000, 6_000_000), "span_past_end"),
        ("constant.mp4", (3_500_000, 4_600_000), "span_past_end"),
        ("uneven.mkv", (5_000_000, 6_000_000), "span_past_end"),
        ("uneven.ts", (5_000_000, 6_000_000), "span_past_end"),
        ("one_frame.mp4", (0, 1_000_000), "span_past_end"),
        ("truncated.mp4", (2_800_000, 3_800_000), "video_truncated"),
        ("no_index.mp4", (0, 1_000_000), "video_undecodable"),
        ("sound.mp4", (0, 1_000_000), "video_no_stream"),
        ("zeros.mp4", (0, 1_000_000), "video_undecodable"),
        ("text.mp4", (0, 1_000_000), "video_undecodable"),
        ("playlist.mp4", (0, 1_000_000), "video_undecodable"),
        ("stream.mp4", (0, 1_000_000), "video_undecodable"),
        ("picture.mp4", (0, 40_000), "video_undecodable"),
    ],
)
def test_undecodable_videos_have_reasons(videos, name, span, reason, by):
    (failure,) = decode(videos / name, span, decoder=by)
    assert failure_of(failure).reason == reason
    assert reason in REASONS
    assert failure_of(failure).message and str(videos) not in failure_of(failure).message


def test_whitelists_are_input_options(videos, stand_in, tmp_path):
    path = videos / "constant.mp4"
    stand_in(f'printf "%s\\n" "$@" > {tmp_path}/words')
    decode(path, (0, 1_000_000), decoder="ffmpeg")
    words = (tmp_path / "words").read_text().splitlines()
    for option in ("-protocol_whitelist", "-format_whitelist", "-max_pixels"):
        assert words.index(option) < words.index("-i")
    assert words[words.index("-protocol_whitelist") + 1] == "file"
    assert words[words.index("-i") + 1] == f"file:{path}"


@pytest.mark.parametrize("container", ["nut", "gif", "yuv4mpegpipe"])
def test_an_unsupported_container_is_named(tmp_path, ffmpeg_run, container, by):
    """The container is known by its content, although the extension is .mp4."""
    path = tmp_path / "video.mp4"
    film = "-f lavfi -i testsrc2=s=64x48:r=10:d=1 -pix_fmt yuv420p"
    ffmpeg_run(*film.split(), "-f", container, path)
    (result,) = decode(path, (0, 100_000), decoder=by)
    failure = failure_of(result)
    assert failure.reason == "video_undecodable"
    assert "its container is not MP4" in failure.message


def test_the_beginning_of_a_truncated_file_is_decoded(videos, by):
    good, bad = decode(videos / "truncated.mp4", (0, 1_000_000), (2_800_000, 3_800_000), decoder=by)
    assert shown(good) == on_screen(ALL, 0, 1_000_000, 8)
    failure_of(bad)


def test_a_span_to_the_end_of_the_video(videos, by):
    (frames,) = decode(videos / "constant.mp4", (3_000_000, 4_000_000), frames=50, decoder=by)
    assert shown(frames) == on_screen(ALL, 3_000_000, 4_000_000, 50)


def test_too_many_pixels(videos, by):
    (failure,) = decode(
        videos / "constant.mp4", (0, 1_000_000), limits=video.Limits(pixels=64 * 48 - 1), decoder=by
    )
    told = "frames of 64x48 where 3,071 pixels are allowed"
    assert failure == Failure("decode_limit", told)


def test_too_much_output(tmp_path, ffmpeg_run, by):
    ribbon = tmp_path / "ribbon.mp4"
    ffmpeg_run("-f", "lavfi", "-i", "color=s=4096x16:d=1", ribbon)
    (failure,) = decode(ribbon, (0, 1_000_000), frames=16, short_side=128, decoder=by)
    assert failure_of(failure).reason == "decode_limit"


def test_too_little_memory(videos, by):
    (failure,) = decode(
        videos / "constant.mp4", (0, 1_000_000), limits=video.Limits(memory=1 << 20), decoder=by
    )
    failure_of(failure)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Return stand_in(script), which replaces ffmpeg by a script."""

    def make(script):
        path = tmp_path / "decoder"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(ffmpeg, "executable", lambda: str(path))

    return make


def test_a_hanging_decoder_is_killed_with_its_children(tmp_path, videos, stand_in):
    with subprocess.Popen(["sleep", f"300.{os.getpid()}"]) as known:
        assert _sleepers() == [known.pid]
        known.kill()
    stand_in(f"sleep 300.{os.getpid()} & echo > {tmp_path}/child; wait")
    began = time.monotonic()
    (failure,) = decode(
        videos / "constant.mp4",
        (0, 1_000_000),
        decoder="ffmpeg",
        limits=video.Limits(seconds=1),
    )
    assert failure_of(failure).reason == "decode_timeout"
    assert time.monotonic() - began < 20
    assert (tmp_path / "child").exists()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _sleepers():
        time.sleep(0.05)
    assert not _sleepers()


def _sleepers():
    """Return the stand-in's children by command line: pids differ in its namespace."""
    words = ["sleep", f"300.{os.getpid()}"]
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if words == process.info["cmdline"]
    ]


def test_a_crashing_decoder(videos, stand_in):
    stand_in("kill -SEGV $$")
    (failure,) = decode(videos / "constant.mp4", (0, 1_000_000), decoder="ffmpeg")
    assert failure == Failure("video_undecodable", "ffmpeg was ended by signal 11")


def test_a_decoder_with_endless_output_is_killed(videos, stand_in):
    stand_in("while :; do echo noise >&2; done")
    (failure,) = decode(
        videos / "constant.mp4",
        (0, 1_000_000),
        decoder="ffmpeg",
        limits=video.Limits(seconds=1),
    )
    assert failure_of(failure).reason == "decode_timeout"


def test_a_full_disk_is_no_fault_of_the_video(videos, stand_in):
    stand_in("echo 'Error: No space left on device' >&2; exit 1")
    with pytest.raises(OSError, match="No space"):
        decode(videos / "constant.mp4", (0, 1_000_000), decoder="ffmpeg")


@pytest.mark.parametrize("decoder", [*video.DECODERS])
def test_inherited_limits_are_not_raised(tmp_path, make_video, decoder):
    path = make_video(tmp_path / "a.mp4")
    program = (
        "import resource, sys; from pipelines.decoding import video;"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30));"
        "found = dict(video.decode(sys.argv[1], [(0, 400_000)], frames=2, short_side=32,"
        " decoder=sys.argv[2]));"
        "assert isinstance(found[0], video.Frames), found"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), decoder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
