"""Annotation files: compressed files, pipes and unsupported files."""

import bz2
import gzip
import io
import os
import select
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from pipelines.sources import annotation_file
from pipelines.sources.clip_request import AnnotationError


def test_a_compressed_file_is_read_in_blocks(tmp_path):
    path = tmp_path / "rows.csv"  # The first bytes, not the name, show the compression.
    path.write_bytes(gzip.compress(b"a,b\n" * 1_000_000))
    with annotation_file.open_to_read(str(path)) as file:
        assert file.readline() == b"a,b\n"
        assert 0 < annotation_file.position(file) <= path.stat().st_size
        assert len(file.read()) == 3_999_996
        assert annotation_file.position(file) == path.stat().st_size


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "rows.json.gz"
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(AnnotationError, match=r"rows.json.gz has more than 1,000,000 bytes"):
        annotation_file.read(str(path), 1_000_000)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xfd7zXZ\0abc", "is an xz file: unpack it"),
        ("video,end\n".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
    ],
)
def test_other_file_formats_are_named(tmp_path, data, told):
    (tmp_path / "rows.csv").write_bytes(data)
    with pytest.raises(AnnotationError, match=f"rows.csv {told}"):
        annotation_file.open_to_read(str(tmp_path / "rows.csv"))


@pytest.mark.parametrize("beginning", ["BZh", "BZh9", "BZh91AY&S", "PK", "PK34", "7z", "Rar!", "("])
def test_text_that_resembles_an_archive_is_text(tmp_path, beginning):
    for data in (beginning.encode(), f"{beginning}1AYx 3 4 a dog runs\n".encode()):
        (tmp_path / "rows.txt").write_bytes(data)
        assert annotation_file.read(str(tmp_path / "rows.txt"), 1000) == data


@pytest.mark.parametrize("compress", [bz2.compress, gzip.compress])
@pytest.mark.parametrize("padding", [0, 1, 512, 300_000])
def test_empty_members_and_padding_are_skipped(tmp_path, compress, padding):
    empty, first, second = compress(b""), compress(b"a\n" * 50_000), compress(b"b\n")
    (tmp_path / "rows").write_bytes(empty + first + empty + empty + second + empty + bytes(padding))
    assert annotation_file.read(str(tmp_path / "rows"), 1 << 20) == b"a\n" * 50_000 + b"b\n"
    (tmp_path / "empty").write_bytes(empty + bytes(padding))
    assert annotation_file.read(str(tmp_path / "empty"), 1 << 20) == b""


@pytest.mark.parametrize("compress", [bz2.compress, gzip.compress])
@pytest.mark.parametrize("after", ["garbage", "half a member", "padding, then garbage"])
def test_data_after_the_last_member_is_refused(tmp_path, compress, after):
    whole = compress(b"a dog runs\n" * 9)
    rest = {
        "garbage": b"x",
        "half a member": whole[:-9],
        "padding, then garbage": bytes(600) + b"x",
    }
    (tmp_path / "rows").write_bytes(whole + compress(b"") + rest[after])
    with pytest.raises(AnnotationError, match=r"^rows is damaged: .*: download it again$"):
        annotation_file.read(str(tmp_path / "rows"), 1000)


def test_an_archive_is_named(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("rows.csv", "a,b")
    (tmp_path / "rows.zip").write_bytes(data.getvalue())
    with pytest.raises(AnnotationError, match=r"rows\.zip is a zip archive: unpack it"):
        annotation_file.open_to_read(str(tmp_path / "rows.zip"))


def write_later(path, data):
    def write():
        with open(path, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("size", [0, 7, 3_000_000])
def test_a_named_pipe_keeps_its_name(tmp_path, size):
    path = tmp_path / "rows.csv"
    os.mkfifo(path)
    writer = write_later(path, b"a" * size)
    with annotation_file.spooled([str(path), str(tmp_path / "gone.csv")]) as (copy, other):
        writer.join()
        assert os.path.basename(copy) == "rows.csv"
        for _ in range(2):
            with annotation_file.open_to_read(copy) as file:
                assert file.read() == b"a" * size
        assert other == str(tmp_path / "gone.csv")
    assert not os.path.exists(os.path.dirname(copy))


@pytest.mark.parametrize("size", [1, 3_000_000])
def test_a_late_writer_is_read(tmp_path, monkeypatch, size):
    path = tmp_path / "rows.csv"
    os.mkfifo(path)
    read, writers = os.read, []

    def read_then_let_a_writer_come(pipe, maximum):
        block = read(pipe, maximum)
        if not writers:
            assert block == b""
            writers.append(write_later(path, b"a" * size))
            select.select([pipe], [], [], 60)
        return block

    monkeypatch.setattr(os, "read", read_then_let_a_writer_come)
    with annotation_file.spooled([str(path)]) as (copy,):
        assert os.path.getsize(copy) == size
        writers[0].join()


def test_shell_pipes_are_named_by_order(tmp_path):
    code = (
        "import sys; from pipelines.sources import annotation_file as a\n"
        "with a.spooled(sys.argv[1:]) as paths:\n"
        "  for path in paths: print(path.rpartition('/')[2], a.open_to_read(path).read())"
    )
    (tmp_path / "file").write_bytes(b"3")
    script = f'"$0" -c "$1" <(printf 1) /dev/stdin <(printf 2) /dev/fd/9 9<{tmp_path}/file'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, code], input=b"in", capture_output=True
    )
    assert done.stdout.decode().splitlines() == [
        "pipe1 b'1'",
        "pipe2 b'in'",
        "pipe3 b'2'",
        "file b'3'",
    ], done.stderr


def test_a_pipe_without_a_writer_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_file, "_WRITER_SECONDS", 0.3)
    os.mkfifo(tmp_path / "rows.csv")
    with (
        pytest.raises(AnnotationError, match=r"no process writes to the pipe .*rows\.csv: start"),
        annotation_file.spooled([str(tmp_path / "rows.csv")]),
    ):
        pass


def test_a_slow_writer_is_awaited_with_a_notice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(annotation_file, "_NOTICE_MS", 50)
    monkeypatch.setattr(annotation_file, "_WRITER_SECONDS", 0.3)
    path = tmp_path / "rows.csv"
    os.mkfifo(path)
    script = "exec 3>$0; sleep 1; echo a >&3"
    with (
        subprocess.Popen(["sh", "-c", script, path]),
        annotation_file.spooled([str(path)]) as (copy,),
    ):
        assert Path(copy).read_text() == "a\n"
    assert f"waiting for data from the pipe {path}" in capsys.readouterr().err


def test_devices_are_refused():
    with (
        pytest.raises(AnnotationError, match="/dev/zero is a device or socket"),
        annotation_file.spooled(["/dev/zero"]),
    ):
        pass
