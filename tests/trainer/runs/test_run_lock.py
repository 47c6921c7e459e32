"""One command at a time in a folder, on a disk, on a file system without locks and in a bucket."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from trainer.cli.main import main
from trainer.runs import run_lock
from trainer.runs.lease_files import BucketFile, DiskFile
from trainer.runs.run_path import run_path

HOLD = """
import pathlib, sys, time
from trainer.runs import run_lock
with run_lock.held(pathlib.Path(sys.argv[1]), "pretrain"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(run_lock, "RENEW_S", 0.1)
    monkeypatch.setattr(run_lock, "EXPIRE_S", 1.0)


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that fails like Lustre without its flock option."""

    def flock(descriptor, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture(params=["disk", "no locks", pytest.param("bucket", marks=pytest.mark.slow)])
def folder(request, tmp_path, quick):
    if request.param == "no locks":
        request.getfixturevalue("no_locks")
    if request.param == "bucket":
        return run_path(f"{request.getfixturevalue('lab')}/locks")
    return tmp_path / "new" / "run"


def test_one_command_at_a_time(folder):
    with run_lock.held(folder, "finetune") as lock:
        before = sorted(folder.iterdir())
        wanted = rf"`svilm-train finetune` \(process {os.getpid()} on .*, since 20.*\) is writing"
        with (
            pytest.raises(run_lock.LockedError, match=wanted),
            run_lock.held(folder, "pretrain"),
        ):
            pass
        lock.check()
        assert sorted(folder.iterdir()) == before == [folder / run_lock.NAME]
    assert not folder.exists()  # it was made for the lock alone
    with run_lock.held(folder, "pretrain"):
        (folder / "config.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout and child.stdout.readline() == "held\n"
        with (
            pytest.raises(run_lock.LockedError, match=f"process {child.pid} on"),
            run_lock.held(tmp_path, "pretrain"),
        ):
            pass
    finally:
        child.kill()
        child.communicate()
    assert (tmp_path / run_lock.NAME).exists()
    began = time.monotonic()
    with run_lock.held(tmp_path, "pretrain"):
        assert json.loads((tmp_path / run_lock.NAME).read_text())["process"] == os.getpid()
    assert time.monotonic() - began < 5
    assert not list(tmp_path.iterdir())


FORK = """
import os, pathlib, sys
from trainer.runs import run_lock
with run_lock.held(pathlib.Path(sys.argv[1]), "pretrain"):
    there, ends = os.pipe()
    child = os.fork()
    if not child:
        os.close(ends)
        os.read(there, 1)  # outlives the command
        os._exit(0)
    os.close(there)
with run_lock.held(pathlib.Path(sys.argv[1]), "finetune"):
    print("held", flush=True)
os.close(ends)
os.waitpid(child, 0)
"""


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    """Run in a separate process, because JAX warns of a fork after it was loaded."""
    script = [sys.executable, "-c", FORK, tmp_path]
    assert subprocess.run(script, check=True, capture_output=True, text=True).stdout == "held\n"


@pytest.mark.parametrize("rounds", [30])
def test_one_of_many_processes_holds_the_lock(tmp_path, rounds):
    """Processes remove files while others open them."""
    inside, most, times = 0, 0, 0
    counted = threading.Lock()

    def come_and_go():
        nonlocal inside, most, times
        for _ in range(rounds):
            try:
                with run_lock.held(tmp_path, "pretrain"):
                    with counted:
                        inside += 1
                        most, times = max(most, inside), times + 1
                    time.sleep(0.001)
                    with counted:
                        inside -= 1
            except run_lock.LockedError:
                time.sleep(0.001)

    threads = [threading.Thread(target=come_and_go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert times > 0


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.slow)])
def lease(request, tmp_path, quick):
    """The folder of a lease, and its file."""
    if request.param == "bucket":
        folder = f"{request.getfixturevalue('lab')}/{request.node.originalname}"
        return run_path(folder), BucketFile(f"{folder}/{run_lock.NAME}")
    request.getfixturevalue("no_locks")
    return tmp_path, DiskFile(str(tmp_path / run_lock.NAME))


def test_a_lease_left_by_a_killed_process_is_taken_over_in_time(lease, capfd):
    folder, file = lease
    file.create(b'{"command": "pretrain", "host": "far", "process": 9, "since": "then"}')
    began = time.monotonic()
    with run_lock.held(folder, "finetune") as lock:
        assert time.monotonic() - began >= run_lock.EXPIRE_S
        assert json.loads(file.read()[0])["command"] == "finetune"
        lock.check()
    with pytest.raises(FileNotFoundError):
        file.read()
    said = "waiting 1 s to check whether `svilm-train pretrain` (process 9 on far, since then) is"
    assert said in capfd.readouterr().err


def test_a_lease_that_was_taken_over_is_lost(lease):
    folder, file = lease
    with (
        pytest.raises(run_lock.LostError, match=r"took over"),
        run_lock.held(folder, "pretrain") as lock,
    ):
        for _ in range(100):
            try:
                file.replace(b"another's", file.read()[1])
            except FileExistsError:  # it was renewed meanwhile
                continue
            time.sleep(3 * run_lock.RENEW_S)
            lock.check()
    assert file.read()[0] == b"another's"


def test_a_suspended_process_asks_before_it_writes(lease, monkeypatch):
    folder, file = lease
    monkeypatch.setattr(run_lock, "RENEW_S", 1000.0)  # as good as suspended
    with pytest.raises(run_lock.LostError), run_lock.held(folder, "pretrain") as lock:
        lock.check()
        file.replace(b"another's", file.read()[1])
        time.sleep(run_lock.EXPIRE_S)
        lock.check()


@pytest.mark.parametrize(
    "command",
    [
        ("pretrain", "--preset=tiny", "--snapshot", "SNAPSHOT"),
        ("pretrain", "--preset=paper", "--snapshot", "SNAPSHOT"),
        (
            "finetune",
            "--task=retrieval",
            "--preset=shapes",
            "--run",
            "RUN",
            "--snapshot",
            "SNAPSHOT",
        ),
        (
            "study",
            "losses",
            "--preset=tiny",
            "--snapshot",
            "SNAPSHOT",
            "--test",
            "SNAPSHOT",
        ),
        ("figures", "--run", "RUN", "--snapshot", "SNAPSHOT"),
    ],
    ids=lambda command: command[0] if isinstance(command, tuple) else None,
)
def test_a_second_command_changes_no_byte(
    command, untrained_run, write_snapshot, tmp_path, capsys, monkeypatch
):
    snapshot = write_snapshot(clips=24, frames=4, height=18, width=24).folder
    held = tmp_path / "held"
    held.mkdir()
    of_run = ("config.json", "vocab.txt", "metrics.jsonl")
    files = {"pretrain": of_run, "finetune": of_run, "study": ("study.json",)}
    for name in files.get(command[0], ("unknown.json",)):
        (held / name).write_text("of the first command")
    places = {"SNAPSHOT": str(snapshot), "RUN": str(untrained_run)}
    argv = [str(places.get(word, word)) for word in command]
    with run_lock.held(held, "pretrain"):
        before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in held.iterdir()}
        assert main([*argv, "--out", str(held)]) == os.EX_TEMPFAIL
        said = capsys.readouterr().err
        assert f"is writing to {held}: run the same command again when it has ended" in said
        after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in held.iterdir()}
        assert after == before
