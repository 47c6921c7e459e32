"""Annotation files from the command line to the snapshot."""

import bz2
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from pipelines.planning.plan import PlanError, survey
from pipelines.snapshots import verify
from protos.v1.manifest_pb2 import SourceOptions

ROOT = Path(__file__).parents[3]
OPTIONS = ("--frames", "2", "--short-side", "24", "--shards", "1")
ROWS = "video,start,end,caption\nmy film,0,1,a man\nmy film,1,2,a dog\n"


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video):
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "my film.mp4", seconds=2)
    make_video(folder / "bread_12345.mp4", seconds=2)
    return folder


def build(source, annotations, videos, out, *more):
    where = ("--annotations", annotations, "--videos", videos, "--out", out)
    return ("build", source, *where, *OPTIONS, *more)


def contents(folder: Path, *but: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in but}


@pytest.mark.parametrize("end", ["", ', "x": {"start": [0], "end": [1], "text": ["a"'])
def test_a_late_fault_in_a_file_fails_the_build(cli, videos, tmp_path, end):
    """The damage is after the rows that are checked before the build."""
    texts = ", ".join(f'"a line {i}"' for i in range(2000))
    times = ", ".join(str(i / 1000) for i in range(2001))
    entry = f'"bread_12345": {{"start": [{times[5:]}], "end": [{times[5:]}], "text": [{texts}]}}'
    (tmp_path / "raw.json").write_text("{" + entry + end)
    done = cli(*build("howto100m", tmp_path / "raw.json", videos, tmp_path / "out"))
    assert done.returncode == 1 and done.stdout == ""
    *_, line = done.stderr.splitlines()
    assert line.startswith("svilm-pipelines: error: the build stopped: raw.json is not valid JSON")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_pipes_and_compressed_files_give_equal_records(cli, videos, tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS)
    done = cli(*build("generic", tmp_path / "rows.csv", videos, tmp_path / "plain"))
    assert done.returncode == 0, done.stderr
    assert "2 rows = 2 records" in done.stdout

    os.mkfifo(tmp_path / "rows.tsv")  # A pipe's name shows the format, too.
    with subprocess.Popen(
        ["sh", "-c", 'tr , "\\t" <"$0" >"$1"', tmp_path / "rows.csv", tmp_path / "rows.tsv"]
    ):
        done = cli(*build("generic", tmp_path / "rows.tsv", videos, tmp_path / "fifo"))
    assert done.returncode == 0, done.stderr
    assert "2 rows = 2 records" in done.stdout

    def through_the_shell(out, workers):
        words = build("generic", "/dev/fd/9", videos, out, "--workers", workers)
        command = [sys.executable, "-m", "pipelines.cli.main", *map(str, words)]
        script = f'exec "$@" 9< <(gzip -cn {tmp_path}/rows.csv)'
        return subprocess.run(
            ["bash", "-c", script, "bash", *command], cwd=ROOT, capture_output=True, text=True
        )

    for out, workers in (("first", 2), ("second", 1)):
        done = through_the_shell(tmp_path / out, workers)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    manifest = verify.read_manifest(str(tmp_path / "first"))
    assert [file.name for file in manifest.annotations] == ["pipe1"]
    done = through_the_shell(tmp_path / "first", 1)  # A resumed build reads the pipe's copy.
    assert "is already complete" in done.stdout


@pytest.mark.parametrize(
    "compress", [gzip.compress, bz2.compress, zstandard.ZstdCompressor().compress]
)
def test_a_compressed_file_is_identified_by_its_bytes(tmp_path, compress):
    many = ROWS + "my film,1,2,a dog\n" * 300_000
    data = compress(many.encode())
    (tmp_path / "rows.csv.x").write_bytes(data)
    found = survey("generic", (str(tmp_path / "rows.csv.x"),), SourceOptions())
    assert found.files[0].bytes == len(data)
    assert found.rows >= 1000


def test_a_file_name_with_invalid_utf_8_is_refused(tmp_path):
    path = os.fsencode(tmp_path / "caf") + b"\xe9.csv"
    with open(path, "w") as file:
        file.write(ROWS)
    with pytest.raises(PlanError, match=r"'caf\\udce9\.csv': the file name is not UTF-8: rename"):
        survey("generic", (os.fsdecode(path),), SourceOptions())


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv"])
def test_a_damaged_compressed_file_is_reported_in_one_line(cli, videos, tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(ROWS.encode())[:-9])
    done = cli(*build("generic", tmp_path / name, videos, tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f"{name} is damaged: Truncated compressed stream: download it again" in line


def test_a_header_with_control_characters_is_escaped(cli, videos, tmp_path):
    (tmp_path / "my.csv").write_text("\x1b[2J\x1b]0;a\x07,end\nmy film,1\n")
    done = cli(*build("generic", tmp_path / "my.csv", videos, tmp_path / "out"))
    assert done.returncode == 1 and "there are \\x1b[2J" in done.stderr
    assert done.stderr.rstrip("\n").isprintable()


BAD = """video,start,end,caption
my film,0,1,a man
my film,0,1000,"in milliseconds, perhaps"
my film,1:2:3:4,2,a frame's number

nowhere\x1b[2J,0,1,a man
nowhere,0,1,a man
my film,0,1,
my film,0,1,"a stray
a/b.mp4,0,1,a path
"""


@pytest.mark.parametrize("good", [True, False])
def test_each_reason_has_an_example_and_a_hint(cli, videos, tmp_path, good):
    text = BAD if good else BAD.replace("0,1,a man", "0,1000,a man")
    (tmp_path / "my.csv").write_text(text)
    done = cli(*build("generic", tmp_path / "my.csv", videos, tmp_path / "out"))
    assert done.returncode == (0 if good else 1), done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("build: rejects: ")]
    assert told == [
        *([] if good else [told[0]]),
        "build: rejects: 2 × video_id_invalid, for example my.csv:6, video 'nowhere\\x1b[2J': "
        "'nowhere\\x1b[2J' is no video id of 1 to 200 characters without '/' "
        "(use the file's name as id; --video-map lists paths)",
        "build: rejects: 1 × caption_empty, for example my.csv:8, video 'my film': the caption is "
        "empty (--keep-empty-captions keeps such rows)",
        'build: rejects: 1 × row_quote, for example my.csv:9: a field opens with " and does not '
        "close (double the quotes within a quoted field)",
        *([told[3]] if good else []),
        "build: rejects: 1 × time_invalid, for example my.csv:4, video 'my film': start '1:2:3:4' "
        "is no number (write a number of --time-unit, or h:m:s)",
        "build: rejects: 1 × video_missing, for example my.csv:7, video 'nowhere': no "
        "nowhere.{mp4,mkv,webm,m4v,mov,avi,…} (make --videos a path template, or list files in "
        "--video-map)",
    ]
    (milliseconds,) = [line for line in told if "span_past_end" in line]
    assert "(for milliseconds, add --time-unit ms)" in milliseconds
    assert f"{1 if good else 2} × span_past_end, for example my.csv:" in milliseconds
