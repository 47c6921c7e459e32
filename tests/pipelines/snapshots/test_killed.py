"""A repeated command cleans up after a killed one, and gives the same result."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.snapshots import remove, run_lock, snapshot, verify
from pipelines.snapshots.export import parquet, sequence_example, webdataset

ROOT = Path(__file__).parents[3]


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def written(tmp_path, write_snapshot, make_clip):
    folder = tmp_path / "snapshot"
    return folder, write_snapshot(folder, [make_clip(name) for name in "abcdef"])


def test_only_the_lock_of_a_killed_run_is_cleared(tmp_path):
    lock = tmp_path / snapshot.LOCK_NAME
    lock.touch()
    run_lock.clear(str(tmp_path))
    assert not lock.exists()
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run_lock.clear(str(tmp_path))
        assert lock.exists()


def test_remove_repeats_after_a_kill_behind_the_manifest(written, tmp_path):
    folder, manifest = written
    out = tmp_path / "out"
    first = remove.remove(str(folder), manifest, {"a"}, str(out), "2.0.0")
    wanted = content(out)
    (out / snapshot.LOCK_NAME).touch()
    assert remove.remove(str(folder), manifest, {"a"}, str(out), "2.0.0") == first
    assert content(out) == wanted
    assert verify.faults(str(out), verify.read_manifest(str(out))) == []
    for ids, version in (({"b"}, "2.0.0"), ({"a"}, "3.0.0")):
        with pytest.raises(snapshot.SnapshotError, match=r"contains 'manifest\.json'"):
            remove.remove(str(folder), manifest, ids, str(out), version)


def write_parquet(folder, manifest, out, **options):
    parquet.write([parquet.Split("shard", folder, manifest)], out, **options)


@pytest.mark.parametrize("write", [webdataset.write, sequence_example.write, write_parquet])
def test_a_killed_export_restarts(write, written, tmp_path):
    folder, manifest = written
    write(str(folder), manifest, str(tmp_path / "whole"))
    wanted, out = content(tmp_path / "whole"), tmp_path / "out"

    class KilledError(Exception):
        pass

    def killed(done, total):
        (out / "shard-00002-of-00003.tar.0123.unfinished").touch()
        raise KilledError

    with pytest.raises(KilledError):
        write(str(folder), manifest, str(out), progress=killed)
    write(str(folder), manifest, str(out))
    assert content(out) == wanted

    # Other files stay unchanged.
    for name in ("export.json", "shard-00000-of-00003.tar", "notes.txt"):
        other = tmp_path / name
        other.mkdir()
        (other / name).write_text("another's")
        with pytest.raises(snapshot.SnapshotError, match="choose an empty folder"):
            write(str(folder), manifest, str(other))
        assert content(other) == {name: b"another's"}


def test_an_export_is_killed_and_repeated(written, tmp_path):
    folder, manifest = written
    webdataset.write(str(folder), manifest, str(tmp_path / "whole"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipelines.cli.main", "export", str(folder), "--out", str(out)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (out / "export.json").exists() and child.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    complete = "contains 'shard-" in done.stderr  # The command had already ended.
    assert done.returncode == 0 or complete, done.stderr
    assert content(out) == content(tmp_path / "whole")
