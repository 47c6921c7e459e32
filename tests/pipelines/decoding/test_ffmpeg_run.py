"""Input of the ffmpeg program: by descriptor or path, with any missing layer."""

import shutil
import sys

import numpy as np
import pytest

from pipelines.decoding import ffmpeg, ffmpeg_run, video
from pipelines.decoding.sandbox import fork_client, programs

SPANS = [(0, 1_000_000), (500_000, 1_400_000)]
HOW = {"frames": 4, "short_side": 32, "decoder": "ffmpeg"}
# Names that ffmpeg would take for URLs or options.
NAMES = ["concat:film.mp4|film.mp4", "img%03d.mp4", "pipe:0.mp4", "fd:.mp4", "-i.mp4", "a\nb.mp4"]
NAMES += ["subfile,,start,0,end,0,,:film.mp4", "data:video%2Fmp4;base64,AAAA.mp4", "*?[a].mp4"]

# A launcher for which the kernel refuses a layer.
WITHOUT = """
from pipelines.decoding.sandbox import fork_server, {layer}, launcher
def refuse(*given, **named):
    raise OSError(1, "refused")
{layer}.restrict = refuse
fork_server.serve(launcher._answer)
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory, make_video):
    return make_video(tmp_path_factory.mktemp("films") / "film.mp4")


@pytest.fixture(scope="module")
def pixels(film):
    return decode(film)


def decode(path, **more) -> list[np.ndarray]:
    found = sorted(video.decode(str(path), SPANS, **HOW, **more), key=lambda one: one[0])
    assert all(isinstance(frames, video.Frames) for _, frames in found), found
    return [frames.pixels for _, frames in found if isinstance(frames, video.Frames)]


@pytest.fixture
def by_path(monkeypatch):
    """Start ffmpeg like an older version, which accepts no descriptors."""
    known = ffmpeg.known()._replace(takes_descriptors=False)
    monkeypatch.setattr(ffmpeg, "known", lambda: known)
    assert ffmpeg_run.source("/a.mp4")["filename"] == "file:/a.mp4"


def test_input_by_descriptor_hides_the_path():
    if not ffmpeg.known().takes_descriptors:
        pytest.skip("an older ffmpeg")
    assert "/a.mp4" not in str(ffmpeg_run.source("/a.mp4"))


def test_an_older_ffmpeg_may_open_only_the_video(film, pixels, by_path):
    np.testing.assert_array_equal(decode(film), pixels)


def test_a_replaced_path_is_not_opened(film, by_path, monkeypatch, tmp_path):
    if missing := fork_client.missing_here():
        pytest.skip(fork_client.described(missing))
    other = tmp_path / "other.mp4"
    shutil.copy(film, other)
    source = ffmpeg_run.source
    monkeypatch.setattr(
        "pipelines.decoding.with_ffmpeg.source", lambda path: source(path.replace(*swap))
    )
    swap = (film.name, film.name)
    decode(film)
    swap = (str(film), str(other))
    for _, failure in video.decode(str(film), SPANS, **HOW):
        assert isinstance(failure, video.Failure) and "denied" in failure.message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("older", [False, True])
def test_special_file_names_are_taken_literally(film, pixels, tmp_path, name, older, request):
    if older:
        request.getfixturevalue("by_path")
    shutil.copy(film, tmp_path / name)
    np.testing.assert_array_equal(decode(tmp_path / name), pixels)


def test_a_missing_video_is_reported(film, tmp_path):
    for _, failure in video.decode(str(tmp_path / "gone.mp4"), SPANS, **HOW):
        assert failure == video.Failure("video_unreadable", "gone.mp4: No such file or directory")


@pytest.mark.parametrize("layer", ["landlock", "seccomp"])
def test_ffmpeg_decodes_without_a_layer(film, pixels, layer, monkeypatch):
    program = (sys.executable, "-c", WITHOUT.format(layer=layer))
    monkeypatch.setattr(programs, "LAUNCHER", program)
    with pytest.raises(fork_client.UnconfinedError, match=rf"{layer} \(refused"):
        decode(film, limits=video.Limits(confined=True))
    np.testing.assert_array_equal(decode(film), pixels)
    assert layer in fork_client.seen
    fork_client.seen.clear()
