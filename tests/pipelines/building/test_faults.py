"""Faults of rows, videos, decoders and disks, in one corpus and one build."""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import simplejpeg

from pipelines.decoding import ffmpeg
from pipelines.snapshots import snapshot, verify
from pipelines.snapshots.snapshot import shard_of
from pipelines.sources.reject_reasons import REASONS
from protos import contract, tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import PlanSummary, Reject, ShardSummary

ROOT = Path(__file__).parents[3]
SECRET = "the secret words of another file"
SECOND = (0, 1_000_000)
STEADY = [3, 9, 15, 21]  # greys of four frames in the first second
GREYS = {  # records with other greys
    "uneven": [0, 7, 14, 21],
    "one_frame": [0, 0, 0, 0],
}
NOUNS = {b"one cat": ["cat"], b"and so, of it": []}


class Row(NamedTuple):
    """An annotation row and its expected result: a reason code, or None for a record."""

    name: str
    span: tuple[object, object]
    caption: bytes
    reason: str | None

    @property
    def video_id(self) -> str:
        return self.name.ljust(11, "_")


def row(name: str, reason: str | None = None, span=SECOND, caption: str | bytes = "one cat") -> Row:
    return Row(name, span, caption if isinstance(caption, bytes) else caption.encode(), reason)


ROWS = [
    # Unusual but valid rows.
    row("steady"),
    row("uneven"),
    row("rotated90"),
    row("rotated180"),
    row("rotated270"),
    row("late_start"),
    row("no_length"),
    row("odd_size"),
    row("ten_bits"),
    row("wide_pixels"),
    row("two_by_two"),
    row("misnamed"),
    row("-dash"),
    row("one_frame", span=(0, 40_000)),
    row("flipped"),
    row("cut_short"),
    row("link_inside"),
    row("steady", span=(200_000, 1_200_000)),
    row("steady", span=(700_000, 1_700_000)),
    row("steady", span=(3_200_000, 4_800_000)),  # cut at 4 s
    row("steady", caption="רוכב על סוס"),
    row("steady", caption="a cat \N{CAT FACE WITH TEARS OF JOY}\N{ZERO WIDTH JOINER} meows"),
    row("steady", caption="and so, of it"),
    row("steady", caption="other words for the same span"),
    # Files that are no videos, or truncated ones.
    row("cut_short", "video_truncated", (2_800_000, 3_800_000)),
    row("no_moov", "video_undecodable"),
    row("empty", "video_empty"),
    row("zeros", "video_undecodable"),
    row("sound", "video_no_stream"),
    row("picture", "video_undecodable"),
    row("text", "video_undecodable"),
    row("one_frame", "span_past_end"),
    row("steady", "span_past_end", (5_000_000, 6_000_000)),
    row("steady", "span_past_end", (3_200_000, 4_800_001)),
    # Paths that are no files, or lead elsewhere.
    row("missing", "video_missing"),
    row("pipe", "video_not_a_file"),
    row("socket", "video_not_a_file"),
    row("folder", "video_not_a_file"),
    row("link_round", "video_unreadable"),
    row("link_out", "video_outside_root"),
    row("device", "video_outside_root"),
    row("ffconcat", "video_undecodable"),
    row("ffconcat_up", "video_undecodable"),
    row("playlist", "video_undecodable"),
    row("dash", "video_undecodable"),
    row("sdp", "video_undecodable"),
    # Decoders at their limits, or broken ones.
    row("huge", "decode_limit", (0, 40_000)),
    row("ribbon", "decode_limit"),
    row("glutton", "decode_limit"),
    row("hung", "decode_timeout"),
    row("crash", "video_undecodable"),
    # Rows that are no clips.
    row("steady", "duplicate"),
    row("steady", "span_empty", (1_000_000, 1_000_000)),
    row("steady", "span_empty", (2_000_000, 1_000_000)),
    row("steady", "time_invalid", ("nan", 1_000_000)),
    row("steady", "time_invalid", (0, "inf")),
    row("steady", "time_invalid", ("soon", "later")),
    row("steady", "time_negative", (-1_000_000, 1_000_000)),
    row("../../../etc/passwd", "video_id_invalid"),
    row("/etc/passwd", "video_id_invalid"),
    row("https://example.org/a.mp4", "video_id_invalid"),
    row("concat:steady.mp4|", "video_id_invalid"),
    row("steady", "caption_empty", caption=" "),
    row("steady", "caption_invalid", caption="a cat\0"),
    row("steady", "row_not_utf8", caption=b"a caf\xe9"),
    row("steady", "row_quote", caption='"a cat'),
]
SIZE = ("--frames", 4, "--short-side", 24, "--shards", 3)
OPTIONS = (*SIZE, "--decode-timeout", 12)
LONGER = (*SIZE, "--decode-timeout", 100)
BROKEN_FFMPEG = ("hung", "crash", "glutton")  # PyAV accepts these

# A stand-in for ffmpeg, which hangs, crashes or runs out of memory on some videos.
DECODER = """#!/bin/sh
case "$*" in
*hung__*) exec sleep 60 ;;
*crash__*) kill -SEGV $$ ;;
*glutton__*)
  test "$(ulimit -v)" = 4194304 && {{ echo Cannot allocate memory >&2; exit 1; }} ;;
esac
exec {ffmpeg} "$@"
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_video, ffmpeg_run) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    videos = folder / "videos"
    videos.mkdir()

    def path(name: str, extension: str = "mp4") -> Path:
        return videos / f"{name:_<11}.{extension}"

    steady = make_video(path("steady"), sound=True)
    make_video(path("uneven", "mkv"), filters="select='not(mod(n,7))'")
    for degrees in (90, 180, 270):
        turned = ("-display_rotation", degrees, "-i", steady, "-c", "copy")
        ffmpeg_run(*turned, path(f"rotated{degrees}"))
    make_video(path("late_start", "mkv"), options=["-output_ts_offset", "5"])
    make_video(path("no_length", "mkv"), options=["-live", "1"])
    make_video(path("odd_size"), filters="scale=51:37,setsar=1")
    make_video(path("ten_bits", "mkv"), options=["-pix_fmt", "yuv444p10le"])
    make_video(path("wide_pixels"), filters="setsar=3/2")
    make_video(path("two_by_two"), filters="scale=2:2,setsar=1")
    path("misnamed", "webm").write_bytes(steady.read_bytes())
    path("-dash").write_bytes(steady.read_bytes())
    make_video(path("one_frame"), seconds=0.04)
    path("link_inside").symlink_to(steady.name)

    front = make_video(folder / "front.mp4", options=["-movflags", "+faststart", "-crf", "0"])
    whole = front.read_bytes()
    path("cut_short").write_bytes(whole[: len(whole) * 6 // 10])
    path("no_moov").write_bytes(steady.read_bytes()[: steady.stat().st_size // 2])
    flipped = bytearray(whole)
    flipped[len(flipped) * 3 // 4] ^= 0x10  # after the first second
    path("flipped").write_bytes(flipped)
    path("empty").touch()
    path("zeros").write_bytes(bytes(10_000))
    ffmpeg_run("-f", "lavfi", "-i", "sine=d=2", "-c:a", "aac", path("sound"))
    ffmpeg_run("-f", "lavfi", "-i", "color=s=64x48", "-frames:v", 1, folder / "picture.png")
    (folder / "picture.png").rename(path("picture"))
    path("text").write_text("hello\n" * 100)

    os.mkfifo(path("pipe"))
    with contextlib.chdir(videos), socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path("socket").name)  # A socket's path must be short.
    path("folder").mkdir()
    path("link_round").symlink_to(path("link_round").name)
    path("device").symlink_to("/dev/zero")

    # Playlists of other users' files: one valid video, and a text that a message would quote.
    secret = folder / "secret.mp4"
    secret.write_bytes(steady.read_bytes())
    path("link_out").symlink_to(secret)
    words = folder / "secret.txt"
    words.write_text(SECRET)
    path("ffconcat").write_text(f"ffconcat version 1.0\nfile {steady.name}\n")
    path("ffconcat_up").write_text(f"ffconcat version 1.0\nfile '{words}'\nfile '{secret}'\n")
    segments = "".join(f"#EXTINF:1,\nfile://{file}\n" for file in (secret, words))
    path("playlist").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{segments}#EXT-X-ENDLIST\n")
    path("dash").write_text(
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT4S"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="0" bandwidth="1"><BaseURL>file://{secret}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    path("sdp").write_text("v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n")

    grey = ("-f", "lavfi", "-i", "color=s=8192x8192:d=0.04,format=gray", "-pix_fmt", "yuvj420p")
    ffmpeg_run(*grey, "-c:v", "mjpeg", path("huge", "avi"))
    ffmpeg_run("-f", "lavfi", "-i", "color=s=4096x16:d=1", path("ribbon"))
    for name in BROKEN_FFMPEG:
        path(name).write_bytes(steady.read_bytes())
    decoder = folder / "decoder"
    decoder.write_text(DECODER.format(ffmpeg=ffmpeg.executable()))
    decoder.chmod(0o755)

    lines = [
        b",".join((row.video_id.encode(), *(str(time).encode() for time in row.span), row.caption))
        for row in ROWS
    ]
    (folder / "rows.csv").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n")
    return folder


def arguments(corpus: Path, out: Path, decoder: str = "ffmpeg", options=OPTIONS) -> list[str]:
    where = ("--annotations", corpus / "rows.csv", "--videos", corpus / "videos", "--out", out)
    how = (*options, "--decoder", decoder)
    return [str(word) for word in ("build", "videocc", *where, *how)]


@pytest.fixture(scope="module")
def build_by(corpus, cli):
    """Return build_by(decoder), which returns the snapshot's folder."""

    @functools.cache
    def build(decoder: str) -> Path:
        out = corpus / decoder
        broken = {ffmpeg.VARIABLE: str(corpus / "decoder")}
        done = cli(*arguments(corpus, out, decoder), env=broken, timeout=120)
        assert done.returncode == 0, done.stderr
        lines = done.stderr.splitlines()
        if decoder == "ffmpeg":  # ffmpeg is a script here, with fewer layers.
            assert "ffmpeg is a script" in lines.pop(0)
        assert all(line.startswith("build: ") for line in lines), done.stderr
        return out

    return build


class Built(NamedTuple):
    folder: Path
    rows: list[Row]  # with their expected results


@pytest.fixture(scope="module", params=["pyav", "ffmpeg"])
def built(request, build_by) -> Built:
    rows = ROWS
    if request.param == "pyav":
        rows = [row._replace(reason=None) if row.name in BROKEN_FFMPEG else row for row in ROWS]
    return Built(build_by(request.param), rows)


@pytest.fixture(scope="module")
def by_ffmpeg(build_by) -> Path:
    return build_by("ffmpeg")


def records_of(folder: Path) -> dict[str, Clip]:
    """Return the items by source row."""
    clips = {}
    for index in folder.glob("*.index"):
        data = index.with_suffix(".tfrecord").read_bytes()
        for entry in snapshot.read_index(str(index)).records:
            framed = data[entry.offset : entry.offset + entry.length]
            clip = Clip.FromString(tfrecord.unframe(framed))
            clips[clip.source_row] = clip
    return clips


def rejects_of(folder: Path) -> dict[str, Reject]:
    """Return the items by source row."""
    rejects = list(snapshot.read_json(str(folder / "plan.json"), PlanSummary).rejects)
    for path in folder.glob("shard-*.json"):
        rejects += snapshot.read_json(str(path), ShardSummary).rejects
    return {reject.source_row: reject for reject in rejects}


def test_every_fault_gives_its_record_or_reject(built):
    folder, rows = built
    rejects = {row: reject.reason for row, reject in rejects_of(folder).items()}
    found = rejects | dict.fromkeys(records_of(folder))
    names = {f"rows.csv:{i}": (row.name, row.reason) for i, row in enumerate(rows, 1)}
    assert {source: (names[source][0], reason) for source, reason in found.items()} == names
    assert not rejects.keys() & records_of(folder).keys()
    assert set(rejects.values()) <= set(REASONS)


def test_counts_are_conserved(built, cli):
    folder, rows = built
    counts = verify.read_manifest(str(folder)).counts
    reasons = Counter(row.reason for row in rows if row.reason)
    assert counts.rows == len(rows) == counts.records + reasons.total()
    assert counts.rejects == reasons
    done = cli("verify", folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_records_show_the_right_frames(built):
    clips = records_of(built.folder)
    for i, row in enumerate(built.rows, 1):
        if row.reason is None and row.span[0] == 0:
            frames = clips[f"rows.csv:{i}"].frames
            greys = [float(simplejpeg.decode_jpeg(frame).mean()) for frame in frames]
            assert greys == pytest.approx(GREYS.get(row.name, STEADY), abs=1.5), row.name


def test_captions_stay_unchanged(built):
    clips = records_of(built.folder)
    for i, row in enumerate(built.rows, 1):
        if row.reason is None:
            clip = clips[f"rows.csv:{i}"]
            assert clip.caption == row.caption.decode()
            if row.caption in NOUNS:
                assert [chunk.text for chunk in clip.noun_chunks] == NOUNS[row.caption]


def test_messages_contain_no_paths_or_other_files(built, corpus):
    for reject in rejects_of(built.folder).values():
        assert reject.message
        assert "\n" not in reject.message
        assert str(corpus) not in reject.message
    for path in built.folder.iterdir():
        assert SECRET.encode() not in path.read_bytes(), path.name


def test_a_playlist_would_open_another_file_without_the_whitelists(corpus):
    bare = [ffmpeg.executable(), "-v", "error", "-i", "ffconcat___.mp4", "-f", "null", "-"]
    done = subprocess.run(bare, cwd=corpus / "videos", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def without_one_shard(built: Path, folder: Path, video_id: str) -> None:
    """Return a build that ended before it wrote the shard of one video."""
    shutil.copytree(built, folder, dirs_exist_ok=True)
    (folder / contract.MANIFEST_NAME).unlink()
    shard = contract.shard_name(shard_of(video_id, 3), 3)
    for path in folder.glob(f"{shard}.*"):
        path.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_build_killed_within_a_shard_resumes(by_ffmpeg, corpus, tmp_path, cli, begin):
    without_one_shard(by_ffmpeg, tmp_path, "hung".ljust(11, "_"))
    decoder = {ffmpeg.VARIABLE: str(corpus / "decoder")}
    build = begin(*arguments(corpus, tmp_path, options=LONGER), env=decoder)
    try:
        deadline = time.monotonic() + 90
        while not (part := list(tmp_path.glob("*.unfinished"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        second = cli(*arguments(corpus, tmp_path), env=decoder)
    finally:
        build.kill()
    assert second.returncode == 1
    assert f"another command is writing to '{tmp_path}'" in second.stderr
    assert [path.exists() for path in part] == [True]
    done = cli(*arguments(corpus, tmp_path), env=decoder)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == contents(by_ffmpeg)


def test_a_build_stopped_by_a_full_disk_resumes(by_ffmpeg, corpus, tmp_path, cli):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk to fill: {mounted.stderr.strip()}")
    try:
        without_one_shard(by_ffmpeg, disk, "steady".ljust(11, "_"))
        decoder = {ffmpeg.VARIABLE: str(corpus / "decoder")}
        used = shutil.disk_usage(disk).used
        resized(disk, used + 8192)
        stopped = cli(*arguments(corpus, disk), env=decoder)
        assert stopped.returncode == 1
        assert "No space left on device" in stopped.stderr
        assert not (disk / contract.MANIFEST_NAME).exists()
        assert not list(disk.glob("shard-*.unfinished"))
        resized(disk, 1 << 20)
        done = cli(*arguments(corpus, disk), env=decoder)
        assert done.returncode == 0, done.stderr
        assert contents(disk) == contents(by_ffmpeg)
    finally:
        subprocess.run(["umount", disk], check=True)


def resized(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
