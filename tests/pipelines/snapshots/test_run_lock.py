"""Locks that admit one run at a time, on a disk and in a bucket."""

import os
import time

import pytest

from pipelines.snapshots import run_lock
from pipelines.snapshots.snapshot import LOCK_NAME, SnapshotError
from pipelines.storage import bucket, storage, stores


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(run_lock, "RENEW_S", 0.1)
    monkeypatch.setattr(run_lock, "EXPIRE_S", 1.0)


@pytest.fixture(params=["disk", "lab", "s3_lab"])
def folder(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path / "new" / "folder")
    return f"{request.getfixturevalue(request.param)}/locks"


def test_one_run_at_a_time(folder, quick):
    with run_lock.held(folder):
        with pytest.raises(SnapshotError, match=LOCK_NAME), run_lock.held(folder):
            pass
        assert storage.names(folder) == [LOCK_NAME]
    assert storage.names(folder) == []
    with run_lock.held(folder):
        pass


def test_the_lock_of_a_killed_build_is_ignored(tmp_path):
    (tmp_path / LOCK_NAME).touch()
    with run_lock.held(str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []


def test_the_lease_of_a_killed_build_expires(any_lab, quick, capsys):
    folder = f"{any_lab}/killed"
    left = bucket.write(f"{folder}/{LOCK_NAME}", b"{}")
    began = time.monotonic()
    with run_lock.held(folder):
        assert time.monotonic() - began >= run_lock.EXPIRE_S
        assert bucket.stat(f"{folder}/{LOCK_NAME}").generation != left
    assert storage.names(folder) == []
    assert f"owner of {folder}/{LOCK_NAME} is alive" in capsys.readouterr().err


def test_a_store_that_ignores_conditions_is_refused(s3_lab, monkeypatch):
    store = stores.store("s3://")
    write = store.write
    monkeypatch.setattr(
        store, "write", lambda bucket, name, data, _: write(bucket, name, data, None)
    )
    with pytest.raises(SnapshotError, match="If-None-Match"), run_lock.held(f"{s3_lab}/ignored"):
        pass
    assert storage.names(f"{s3_lab}/ignored") == []


def test_a_run_that_lost_its_lease_ends(any_lab, quick):
    folder = f"{any_lab}/lost"
    with pytest.raises(SnapshotError, match="took over"), run_lock.held(folder):
        for _ in range(30):  # In the emulator, a concurrent renewal may overwrite it.
            bucket.write(f"{folder}/{LOCK_NAME}", b"another's")
            time.sleep(1)
    assert bucket.read(f"{folder}/{LOCK_NAME}") == b"another's"


def test_a_run_without_lease_ends_after_a_missed_interrupt(any_lab, quick):
    folder = f"{any_lab}/missed"
    missed = 0
    with pytest.raises(SnapshotError, match="took over"), run_lock.held(folder):
        for _ in range(30):
            try:
                bucket.write(f"{folder}/{LOCK_NAME}", b"another's")
                time.sleep(1)
            except KeyboardInterrupt:
                missed += 1
                if missed == 2:
                    break
    assert missed == 2
