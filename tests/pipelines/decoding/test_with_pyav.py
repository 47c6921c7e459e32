"""PyAV's child: hanging, crashing, wrong and oversized answers, and skipped frames."""

import os
import signal
import sys
import time

import pytest

from pipelines.decoding import video, with_pyav
from pipelines.decoding.sandbox import fork_client
from pipelines.decoding.video_file import Failure

SPANS = [(0, 1_000_000), (1_000_000, 2_000_000)]


def decode(path, spans=SPANS, *, by="pyav", limits=video.LIMITS, frames=8, short_side=48):
    found = video.decode(
        str(path), spans, frames=frames, short_side=short_side, decoder=by, limits=limits
    )
    results = dict(found)
    return [results[i] for i in range(len(spans))]


@pytest.fixture(scope="module")
def film(tmp_path_factory, make_video):
    return make_video(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture
def child(monkeypatch):
    """Return child(code), which replaces a function of the child."""

    def put(code: str, instead_of: str = "child._serve(video, request, out)") -> None:
        fork_client.end_idle()
        program = (
            "import os, signal, time\nfrom pipelines.decoding import pyav_child as child\n"
            "from pipelines.decoding import pyav_spans, pyav_video\n"
            f"def changed{instead_of[instead_of.index('(') :]}:\n    {code}\n"
            f"{instead_of[: instead_of.index('(')]} = changed\nchild.main()\n"
        )
        monkeypatch.setattr(with_pyav, "PROGRAM", (sys.executable, "-c", program))

    yield put
    monkeypatch.undo()
    fork_client.end_idle()


def test_a_hanging_child_is_killed_in_time(child, film):
    child("time.sleep(300)")
    began = time.monotonic()
    found = decode(film, limits=video.Limits(seconds=1))
    assert found == [Failure("decode_timeout", "more than 1 s")] * 2
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "video_undecodable", "ended by signal 11"),
        ("os._exit(3)", "video_undecodable", "ended with status 3"),
        ("bytearray(8 << 30)", "decode_limit", "more memory"),
        (
            "child._write(out, video, None)",
            "decoder_fault",
            "AttributeError in pipelines.decoding.pyav_child, line ",
        ),
        ("child._send(out, {'span': 7})", "video_undecodable", "not of its form"),
        (
            "child._send(out, {'span': 0, 'width': 1 << 20, 'height': 48, 'stride': 3 << 20})",
            "video_undecodable",
            "not of its form",
        ),
        ("child._send(out, [])", "video_undecodable", "not of its form"),
        ("child._send(out, {'span': 'a', 'found': []})", "video_undecodable", "not of its form"),
        ("out.write(b'\\4\\0\\0\\0\\xff\\xff\\xff\\xff')", "video_undecodable", "not of its form"),
        ("os.write(os.memfd_create('x'), b'x')", "video_undecodable", "not permitted"),
    ],
)
def test_invalid_answers_of_a_child_are_failures(child, film, code, reason, told):
    child(code)
    for failure in decode(film):
        assert isinstance(failure, Failure)
        assert failure.reason == reason and told in failure.message


def test_spans_before_a_crash_are_kept(child, film):
    told = {"span": 1, "found": 3, "message": "", "stated_us": 4_000_000}
    child(f"child._send(out, {told}); os.kill(os.getpid(), signal.SIGSEGV)")
    first, second = decode(film)
    assert first == Failure("video_undecodable", "the decoder was ended by signal 11")
    counted = "3 of 8 frames of a file that states a length of 4 s"
    assert second == Failure("video_truncated", counted)


def test_a_missing_frame_is_not_promised_twice(film, child):
    spans = [(0, 1_600_000), (40_000, 1_640_000), (2_000_000, 3_600_000)]
    whole = decode(film, spans)
    dropped = "return [] if packet and packet.pts == lost(self) else child._decoded(self, packet)"
    child(
        "import types; lost = lambda self: round(0.52 * self._stream.time_base.denominator)\n"
        "    child._decoded = pyav_video.Video._decoded\n"
        f"    def _decoded(self, packet):\n        {dropped}\n"
        "    pyav_video.Video._decoded = _decoded\n    serve(video, request, out)\n"
        "serve = child._serve"
    )
    found = decode(film, spans)
    for frames, others in zip(found, whole, strict=True):
        assert isinstance(frames, video.Frames) and isinstance(others, video.Frames)
        assert frames.pixels.shape == others.pixels.shape
    last, unharmed = found[2], whole[2]
    assert isinstance(last, video.Frames) and isinstance(unharmed, video.Frames)
    assert (last.pixels == unharmed.pixels).all()


def test_a_dead_fork_server_is_no_fault_of_the_video(film, monkeypatch):
    fork_client.end_idle()
    monkeypatch.setattr(with_pyav, "PROGRAM", (sys.executable, "-c", "raise SystemExit(1)"))
    with pytest.raises(OSError, match="has died"):
        decode(film)
    fork_client.end_idle()


def test_a_title_with_invalid_utf_8(tmp_path, film, ffmpeg_run):
    titled = tmp_path / "titled.mp4"
    ffmpeg_run("-i", film, "-c", "copy", "-metadata", "title=cafeteria", titled)
    titled.write_bytes(titled.read_bytes().replace(b"cafeteria", b"caf\xe9teria"[:9]))
    assert all(isinstance(frames, video.Frames) for frames in decode(titled))


def test_a_bad_child_does_not_affect_the_next(child, film, monkeypatch):
    child("os.kill(os.getpid(), signal.SIGKILL)")
    assert all(isinstance(failure, Failure) for failure in decode(film))
    monkeypatch.undo()
    fork_client.end_idle()
    assert all(isinstance(frames, video.Frames) for frames in decode(film))


def test_a_dead_fork_server_is_replaced(film):
    decode(film)
    (idle,) = fork_client._idle
    os.kill(idle.process.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert all(isinstance(frames, video.Frames) for frames in decode(film))


def test_an_abandoned_reader_leaves_no_child(film):
    found = video.decode(str(film), SPANS, frames=8, short_side=48, decoder="pyav")
    next(found)
    del found
    assert all(isinstance(frames, video.Frames) for frames in decode(film))


@pytest.mark.parametrize("looked_at", [False, True])
def test_frames_of_finished_spans_are_freed(looked_at, film, child):
    if looked_at:
        child(
            "raise pyav_spans.IrregularError", instead_of="pyav_spans.chosen_frames(video, spans)"
        )
    spans = [(i * 40_000, i * 40_000 + 40_000) for i in range(100)]
    limits = video.Limits(memory=1 << 30)
    found = video.decode(str(film), spans, frames=1, short_side=2048, decoder="pyav", limits=limits)
    for _, frames in found:  # 17 MB per frame
        assert isinstance(frames, video.Frames), frames


CODECS = {
    "h264": (
        "-c:v",
        "libx264",
        "-bf",
        "4",
        "-x264-params",
        "b-pyramid=normal:keyint=24:scenecut=0",
    ),
    "open": ("-c:v", "libx264", "-bf", "3", "-x264-params", "open-gop=1:keyint=24:scenecut=0"),
    "hevc": ("-c:v", "libx265", "-x265-params", "log-level=none:keyint=24:bframes=4"),
    "mpeg4": ("-c:v", "mpeg4", "-bf", "2", "-g", "12"),
    "vp9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "24"),
}


@pytest.mark.parametrize("codec", CODECS)
def test_unreferenced_frames_are_skipped(codec, child, tmp_path, ffmpeg_run):
    path = tmp_path / ("film.mkv" if codec == "vp9" else "film.mp4")
    moving = "testsrc2=s=96x64:r=24:d=4,noise=alls=20:allf=t"
    ffmpeg_run("-f", "lavfi", "-i", moving, *CODECS[codec], "-pix_fmt", "yuv420p", path)
    spans = [(0, 4_000_000), (500_000, 900_000), (2_100_000, 2_200_000), (3_300_000, 3_900_000)]
    chosen = decode(path, spans, frames=6, short_side=64)
    child("raise pyav_spans.IrregularError", instead_of="pyav_spans.chosen_frames(video, spans)")
    looked_at = decode(path, spans, frames=6, short_side=64)
    for frames, others in zip(chosen, looked_at, strict=True):
        assert isinstance(frames, video.Frames) and isinstance(others, video.Frames)
        assert frames.times_us == others.times_us
        assert (frames.pixels == others.pixels).all()


def test_a_missing_or_unreadable_file_is_reported(tmp_path):
    for spans in (SPANS, [(0, video.TO_THE_END)]):
        for failure in decode(tmp_path / "gone.mp4", spans):
            assert failure == Failure("video_unreadable", "gone.mp4: No such file or directory")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("others.mkv", "-c:s srt -attach {text} -metadata:s:t mimetype=text/plain"),
        ("ass.mkv", "-c:s ass -c:a flac"),
        ("others.mp4", "-c:s mov_text -c:a aac -timecode 00:00:00:00"),
        ("others.mov", "-c:s mov_text -c:a pcm_s16le -timecode 00:00:00:00"),
        ("webvtt.webm", "-c:v libvpx -b:v 500k -c:s webvtt -c:a libopus"),
    ],
)
def test_streams_of_other_kinds(films, name, options):
    """The confined child cannot load further libraries for such streams."""
    text = films.folder / "text.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:02,000\nA cat.\n")
    tone = ("-f", "lavfi", "-i", "sine=440:duration=6")
    maps = ("-map", "2:s", "-map", "1:a", "-map", "0:v")
    coded = ("-c:v", "libx264", "-g", "25", "-pix_fmt", "yuv420p")
    path = films.folder / name
    failed = films.run(
        *("-i", films.source, *tone, "-i", text, *maps, *coded),
        *(word.format(text=text) for word in options.split()),
        path,
    )
    assert not failed
    (found,) = films.decode(path, (2_000_000, 2_400_000))
    assert films.numbers(found) == [51, 53, 55, 57, 59]
