"""Colours and rotations with both decoders."""

import subprocess

import numpy as np
import pytest

from pipelines.decoding import ffmpeg, video

RAW = ("-c:v", "rawvideo", "-pix_fmt")
MKV = ("-allow_raw_vfw", "1", *RAW)


@pytest.fixture(params=[*video.DECODERS])
def by(request):
    return request.param


def first(path, decoder, short_side=48):
    found = video.decode(
        str(path), [(0, 200_000)], frames=1, short_side=short_side, decoder=decoder
    )
    ((_, frames),) = found
    assert isinstance(frames, video.Frames), frames
    return frames.pixels[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mov", ("-c:v", "qtrle", "-pix_fmt", "rgb555be")),
        ("a.avi", ("-c:v", "msvideo1")),
        ("rgb555le.avi", (*RAW, "rgb555le")),
        ("rgb565le.avi", (*RAW, "rgb565le")),
        ("rgb555be.mov", (*RAW, "rgb555be")),
        ("rgb444le.mkv", (*MKV, "rgb444le")),
        ("bgr565be.mkv", (*MKV, "bgr565be")),
        ("rgb8.mkv", (*MKV, "rgb8")),
        ("rgb24.avi", (*RAW, "bgr24")),
    ],
)
def test_formats_of_few_bits_have_the_colours_of_ffmpegs_rgb24(tmp_path, by, name, options):
    source = "testsrc=s=64x48:r=5:d=1,drawbox=w=16:h=16:c=white:t=fill"
    run = [ffmpeg.executable(), "-v", "error"]
    made = [*run, "-f", "lavfi", "-i", source, *options, tmp_path / name]
    subprocess.run(made, check=True)
    shown = [*run, "-i", tmp_path / name, "-frames:v", "1"]
    shown += ["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    expected = np.frombuffer(subprocess.run(shown, check=True, capture_output=True).stdout, "u1")
    expected = expected.reshape(48, 64, 3)
    assert (first(tmp_path / name, by) == expected).all()
    small = first(tmp_path / name, by, short_side=24)
    assert np.abs(small[3, 3].astype(int) - expected[6, 6]).max() <= 3


@pytest.mark.parametrize(("degrees", "shape"), [(10, (48, 64)), (45, (48, 64)), (80, (64, 48))])
def test_other_angles_are_rounded_to_quarter_turns(
    tmp_path, make_video, ffmpeg_run, degrees, shape
):
    made = {}
    make_video(tmp_path / "upright.mp4")
    for angle in (degrees, 0 if degrees <= 45 else 90):
        made[angle] = tmp_path / f"{angle}.mp4"
        ffmpeg_run(
            *("-display_rotation", angle, "-i", tmp_path / "upright.mp4"),
            *("-c", "copy", made[angle]),
        )
    found, nearest = (first(path, "pyav") for path in made.values())
    assert found.shape[:2] == shape
    assert (found == nearest).all()
