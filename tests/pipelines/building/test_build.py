"""Builds by the command line, from good and bad rows and videos."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import simplejpeg

from pipelines.decoding import ffmpeg
from pipelines.snapshots import snapshot, verify
from protos import contract, tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import PlanSummary, ShardSummary

GOOD, UNEVEN, SOUND, TEXT = "good_video_", "uneven-vide", "-sound-only", "text_video_"
EMPTY, MISSING, PIPE, OUTSIDE = "empty_video", "no_video___", "pipe_video_", "outside_vid"

ROWS = [
    (GOOD, 0, 1_000_000, "A man rides a brown horse", None),
    (GOOD, 1_000_000, 2_000_000, "The dog eats, then sleeps", None),
    (GOOD, 500_000, 1_500_000, "A man rides a brown horse", None),
    (GOOD, 0, 1_000_000, "A man rides a brown horse", "duplicate"),
    (GOOD, 0, 1_000_000, "the same span with other words", None),
    (f"https://www.youtube.com/watch?v={UNEVEN}", 1_000_000, 3_000_000, "one cat", None),
    (GOOD, 3_500_000, 9_000_000, "past the end", "span_past_end"),
    (SOUND, 0, 1_000_000, "a sound", "video_no_stream"),
    (TEXT, 0, 1_000_000, "a text", "video_undecodable"),
    (EMPTY, 0, 1_000_000, "nothing", "video_empty"),
    (MISSING, 0, 1_000_000, "nothing at all", "video_missing"),
    (PIPE, 0, 1_000_000, "a pipe", "video_not_a_file"),
    (OUTSIDE, 0, 1_000_000, "a link", "video_outside_root"),
    ("../../../etc", 0, 1_000_000, "a path", "video_id_invalid"),
    (GOOD, "soon", "later", "a time", "time_invalid"),
    (GOOD, 2, 1, "a span", "span_empty"),
    (GOOD, 1, 2, "", "caption_empty"),
]
BAD = {reason for *_, reason in ROWS if reason}
OPTIONS = ("--frames", 4, "--short-side", 24, "--shards", 5)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_video, ffmpeg_run):
    folder = tmp_path_factory.mktemp("inputs")
    videos = folder / "videos"
    videos.mkdir()
    make_video(videos / f"{GOOD}.mp4", sound=True)
    make_video(videos / f"{UNEVEN}.mkv", filters="select='not(mod(n,7))'")
    ffmpeg_run("-f", "lavfi", "-i", "sine=d=2", "-c:a", "aac", videos / f"{SOUND}.mp4")
    (videos / f"{TEXT}.mp4").write_text(f"ffconcat version 1.0\nfile {GOOD}.mp4\n")
    (videos / f"{EMPTY}.mp4").touch()
    os.mkfifo(videos / f"{PIPE}.mp4")
    (folder / "secret.mp4").write_bytes((videos / f"{GOOD}.mp4").read_bytes())
    (videos / f"{OUTSIDE}.mp4").symlink_to(folder / "secret.mp4")
    lines = [f"{video},{start},{end},{caption}" for video, start, end, caption, _ in ROWS]
    (folder / "rows.csv").write_text("url,start,end,caption\n" + "\n".join(lines) + "\n")
    return folder


def arguments(inputs, out, *more):
    where = ("--annotations", inputs / "rows.csv", "--videos", inputs / "videos", "--out", out)
    return ("build", "videocc", *where, *OPTIONS, *more)


@pytest.fixture(scope="module")
def built(inputs, cli):
    done = cli(*arguments(inputs, inputs / "one"))
    assert done.returncode == 0, done.stderr
    return inputs / "one", done


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def told_its_pace(done) -> bool:
    """Return whether the workers' counts reached the command."""
    clips = sum(reason is None for *_, reason in ROWS)
    return bool(re.search(rf"build: {clips} clips, .* in 5 shards, .* clips/s after", done.stdout))


def records(folder: Path) -> list[Clip]:
    clips = []
    for index in sorted(folder.glob("*.index")):
        data = index.with_suffix(".tfrecord").read_bytes()
        for entry in snapshot.read_index(str(index)).records:
            framed = data[entry.offset : entry.offset + entry.length]
            clips.append(Clip.FromString(tfrecord.unframe(framed)))
    return clips


def test_every_row_is_a_record_or_a_reject(built):
    folder, done = built
    manifest = verify.read_manifest(str(folder))
    good = [i for i, row in enumerate(ROWS) if row[-1] is None]
    assert manifest.counts.rows == len(ROWS)
    assert manifest.counts.records == len(good)
    assert manifest.counts.rejects == {
        reason: sum(row[-1] == reason for row in ROWS) for reason in BAD
    }
    rejects = list(snapshot.read_json(str(folder / "plan.json"), PlanSummary).rejects)
    for path in folder.glob("shard-*.json"):
        rejects += snapshot.read_json(str(path), ShardSummary).rejects
    by_row = {reject.source_row: reject.reason for reject in rejects}
    by_row |= {clip.source_row: None for clip in records(folder)}
    assert by_row == {f"rows.csv:{i}": row[-1] for i, row in enumerate(ROWS, 2)}
    assert f"{len(ROWS)} rows = {len(good)} records + {len(BAD)} rejects" in done.stdout
    assert "span_past_end 1" in done.stdout


def test_records_show_their_frames(built):
    folder, _ = built
    clips = {clip.source_row: clip for clip in records(folder)}
    first, cat = clips["rows.csv:2"], clips["rows.csv:7"]
    assert (first.video_id, first.start_us, first.end_us) == (GOOD, 0, 1_000_000)
    assert [chunk.text for chunk in first.noun_chunks] == ["man", "brown horse"]
    assert (first.height, first.width) == (24, 32)
    assert clips["rows.csv:3"].caption == "The dog eats, then sleeps"
    assert cat.video_id == UNEVEN
    assert cat.noun_chunks[0].prompts[0] == "A footage of a cat."
    # Grey n is frame n, at n·40 ms. The cat's video has only each seventh frame.
    for clip, shown in ((first, [3, 9, 15, 21]), (cat, [28, 42, 56, 63])):
        greys = [simplejpeg.decode_jpeg(frame).mean() for frame in clip.frames]
        assert np.allclose(greys, shown, atol=1.5), greys


def test_verify_finds_no_fault(built, cli):
    folder, _ = built
    done = cli("verify", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is sound" in done.stdout


def test_two_workers_write_the_same_bytes(built, inputs, cli):
    folder, _ = built
    done = cli(*arguments(inputs, inputs / "two", "--workers", 2))
    assert done.returncode == 0, done.stderr
    assert contents(inputs / "two") == contents(folder)
    assert told_its_pace(done)
    assert all(line.startswith("build: ") for line in done.stderr.splitlines()), done.stderr


@pytest.fixture
def worker_pool(tmp_path):
    """Return the address of a pool of Beam's worker processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "apache_beam.runners.worker.worker_pool_main"
    pool = subprocess.Popen(
        [sys.executable, "-m", module, f"--service_port={port}"],
        cwd=Path(__file__).parents[3],
        # The pool starts the first `python` on the path.
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert pool.poll() is None and time.monotonic() < deadline, "no worker pool"
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        pool.terminate()
        pool.wait(timeout=30)


def test_an_external_pool_of_workers_writes_the_same_bytes(built, inputs, cli, worker_pool):
    folder, _ = built
    portable = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=EXTERNAL")
    more = (*portable, f"--environment_config={worker_pool}")
    done = cli(*arguments(inputs, inputs / "pool", *more))
    assert done.returncode == 0, done.stderr
    assert contents(inputs / "pool") == contents(folder)
    assert told_its_pace(done)


def test_a_snapshot_has_no_trace_of_its_machine(built, inputs):
    folder, _ = built
    for name, data in contents(folder).items():
        assert str(inputs).encode() not in data, name
        assert b"/tmp" not in data, name


def test_a_repeated_build_changes_nothing(built, inputs, cli):
    folder, _ = built
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    done = cli(*arguments(inputs, folder))
    assert done.returncode == 0 and "already complete" in done.stdout
    assert "--videos and --video-map were not read" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    other = cli(*arguments(inputs, folder, "--jpeg-quality", 90))
    assert other.returncode == 1
    assert "another configuration (--jpeg-quality 95 → 90)" in other.stderr


def test_an_interrupted_build_resumes(built, inputs, cli):
    folder, _ = built
    half = inputs / "half"
    half.mkdir()
    for path in folder.iterdir():
        if path.name != contract.MANIFEST_NAME:
            (half / path.name).write_bytes(path.read_bytes())
    stems = [path.with_suffix("") for path in sorted(half.glob("*.tfrecord"))]
    largest = max(stems, key=lambda stem: stem.with_suffix(".tfrecord").stat().st_size)
    others = [stem for stem in stems if stem != largest]
    data = bytearray(largest.with_suffix(".tfrecord").read_bytes())
    data[len(data) // 2] ^= 1
    largest.with_suffix(".tfrecord").write_bytes(data)
    others[0].with_suffix(".json").unlink()
    (half / f"{others[1].name}.tfrecord.0123.unfinished").write_bytes(b"part")
    (half / snapshot.LOCK_NAME).touch()
    kept = {path: path.stat().st_mtime_ns for path in half.glob(f"{others[2].name}.*")}

    incomplete = cli("verify", half)
    assert incomplete.returncode == 1 and "run the same build again" in incomplete.stderr
    done = cli(*arguments(inputs, half))
    assert done.returncode == 0, done.stderr
    assert contents(half) == contents(folder)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_build_reports_it(inputs, tmp_path, begin, workers):
    build = begin(*arguments(inputs, tmp_path / "out", "--workers", workers))
    try:
        if workers == 1:
            eventually(lambda: any((tmp_path / "out").glob("*.json")))
            os.kill(build.pid, signal.SIGINT)
        else:
            eventually(lambda: workers_of(build.pid))
            os.killpg(build.pid, signal.SIGINT)  # as a terminal sends it
        _, errors = build.communicate(timeout=120)
    finally:
        build.kill()
    assert build.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    assert not (tmp_path / "out" / contract.MANIFEST_NAME).exists()


@pytest.mark.parametrize("moment", [0.0, 1.0])
def test_workers_exit_with_a_killed_build(inputs, tmp_path, begin, moment):
    build = begin(*arguments(inputs, tmp_path / "out", "--workers", 2))
    eventually(lambda: len(workers_of(build.pid)) == 2)
    time.sleep(moment)  # The kill comes before or while they connect.
    workers = [psutil.Process(pid) for pid in workers_of(build.pid)]
    build.kill()
    _, left = psutil.wait_procs(workers, timeout=5)
    for one in left:
        one.kill()
    assert not left


@pytest.mark.slow
def test_a_build_survives_three_killed_workers(inputs, tmp_path, cli, begin):
    out, slow = tmp_path / "out", tmp_path / "slow"
    by_ffmpeg = ("--decoder", "ffmpeg")  # The pipe blocks the build.
    slow.write_text(f"#!/bin/sh\nsleep 1\nexec '{ffmpeg.executable()}' \"$@\"\n")
    slow.chmod(0o755)

    def begun() -> set[Path]:
        return set(out.glob("shard-*.tfrecord.*.unfinished"))

    for time_of_death in ("as it starts", "in a shard", "in a shard again"):
        words = arguments(inputs, out, "--workers", 2, *by_ffmpeg)
        build = begin(*words, env={ffmpeg.VARIABLE: str(slow)})
        try:
            left = begun()
            eventually(lambda build=build: workers_of(build.pid))
            if time_of_death != "as it starts":
                eventually(lambda left=left, build=build: stopped(build.pid) and begun() - left)
            for worker in workers_of(build.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            _, errors = build.communicate(timeout=120)
        finally:
            build.kill()
        assert build.returncode == 1
        assert "run the same command again" in errors and "Traceback" not in errors
        assert not (out / contract.MANIFEST_NAME).exists()
    assert begun()
    undisturbed = tmp_path / "undisturbed"
    for done in (
        cli(*arguments(inputs, out, "--workers", 2, *by_ffmpeg)),
        cli(*arguments(inputs, undisturbed, *by_ffmpeg)),
    ):
        assert done.returncode == 0, done.stderr
    assert contents(out) == contents(undisturbed)


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stopped(parent: int) -> bool:
    """Suspend the workers after a moment, so that their state lasts."""
    for doing in (signal.SIGCONT, signal.SIGSTOP):
        for worker in workers_of(parent):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, doing)
        time.sleep(0.02)
    return True


def workers_of(parent: int) -> list[int]:
    """Return the worker processes of a build."""
    children, workers = list[str](), list[int]()
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # thread ended
            children += (task / "children").read_text().split()
    for child in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # process ended
            if b"sdk_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                workers.append(int(child))
    return workers


def test_a_build_without_records_fails(tmp_path, inputs, cli):
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{MISSING},0,1000000,a man\n")
    done = cli(
        *("build", "videocc", "--annotations", rows, "--videos", inputs / "videos"),
        *("--out", tmp_path / "out", "--shards", 1),
    )
    assert done.returncode == 1
    assert "(1 rows = 0 records + 1 rejects (video_missing 1))" in done.stderr
    assert not (tmp_path / "out" / contract.MANIFEST_NAME).exists()


def test_filters_drop_rows_as_rejects(tmp_path, inputs, cli):
    (tmp_path / "seen.txt").write_text(f"{UNEVEN}\nv_a\nhttps://x/b\n'c'\nv_a.mp4\nd\n")
    filters = ("--exclude", tmp_path / "seen.txt", "--max-words", 5, "--min-clip", 0.5)
    done = cli(*arguments(inputs, tmp_path / "out", *filters))
    assert done.returncode == 0, done.stderr
    warning = done.stderr.splitlines()[-1]
    assert "warning: 4 videos of --exclude match no row: " in warning
    assert warning.count("'") + warning.count('"') >= 6 and "and 1 more: " in warning
    manifest = verify.read_manifest(str(tmp_path / "out"))
    assert manifest.counts.rows == len(ROWS)
    assert manifest.counts.rejects["excluded"] == 1
    assert manifest.counts.rejects["caption_too_long"] == 4
    assert manifest.config.filters.max_caption_words == 5
    assert manifest.config.filters.excluded_sha256


def test_a_video_map_gives_the_same_records(built, inputs, tmp_path, cli):
    folder, _ = built
    videos = sorted((inputs / "videos").iterdir())
    rows = ["video_id,path", *(f"{path.stem},{path.name}" for path in videos)]
    (tmp_path / "map.csv").write_text("\n".join(rows))
    done = cli(*arguments(inputs, tmp_path / "out", "--video-map", tmp_path / "map.csv"))
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "out") == records(folder)
    counts = [verify.read_manifest(str(path)).counts for path in (tmp_path / "out", folder)]
    assert counts[0] == counts[1]


def test_activitynet_with_its_file_names_and_ends(inputs, tmp_path, cli):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / f"v_{GOOD}.mkv").symlink_to("whole.mp4")
    (tmp_path / "videos" / "whole.mp4").write_bytes(
        (inputs / "videos" / f"{GOOD}.mp4").read_bytes()
    )
    entry = {"duration": 4.2, "timestamps": [[0, 2], [3, 4.2]], "sentences": ["a man", "a dog"]}
    (tmp_path / "val_1.json").write_text(json.dumps({f"v_{GOOD}": entry}))
    done = cli(
        *("build", "activitynet", "--annotations", tmp_path / "val_1.json"),
        *("--videos", f"{tmp_path}/videos/v_{{video_id}}.{{ext}}", "--out", tmp_path / "out"),
        *OPTIONS,
    )
    assert done.returncode == 0, done.stderr
    ends = {clip.caption: (clip.end_us, clip.end_cut_from_us) for clip in records(tmp_path / "out")}
    assert ends == {"a man": (2_000_000, 0), "a dog": (4_000_000, 4_200_000)}
    done = cli("inspect", tmp_path / "out")
    assert "0:03.000 – 0:04.000 (1 s, cut from 0:04.200)" in done.stdout


def test_square_png_frames(built, inputs, cli):
    folder, _ = built
    out = inputs / "png"
    done = cli(*arguments(inputs, out, "--encoding", "png", "--square"))
    assert done.returncode == 0, done.stderr
    manifest = verify.read_manifest(str(out))
    assert verify.faults(str(out), manifest) == []
    assert set(manifest.versions) == {"pipeline", "png", "pyav", "spacy", "spacy_model"}
    for clip, jpeg in zip(records(out), records(folder), strict=True):
        assert (clip.clip_id, clip.height, clip.width) == (jpeg.clip_id, 24, 24)
        assert all(frame.startswith(b"\x89PNG") for frame in clip.frames)
    done = cli("inspect", out, "--pictures", inputs / "png.html")
    assert done.returncode == 0, done.stderr
    done = cli("diff", folder, out)
    assert "option frame_encoding: FRAME_ENCODING_JPEG → FRAME_ENCODING_PNG" in done.stdout
    assert "option square: none → True" in done.stdout


def test_the_manifest_is_plain_json(built):
    folder, _ = built
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dataset"] == "videocc"
    assert manifest["schema_version"] == contract.SCHEMA_VERSION
    assert set(manifest["versions"]) == {"jpeg", "pipeline", "pyav", "spacy", "spacy_model"}
