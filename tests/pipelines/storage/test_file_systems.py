"""Snapshots on file systems that cannot sync folders or have no locks."""

import errno
import fcntl
import os
import stat

import pytest

from pipelines.snapshots import run_lock, snapshot
from pipelines.storage import storage


def failing(real, number, when):
    def call(descriptor, *rest):
        if when(descriptor):
            raise OSError(number, os.strerror(number))
        return real(descriptor, *rest)

    return call


def is_folder(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF])
def test_a_folder_without_sync_is_writable(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number, is_folder))
    entry = snapshot.write_file(str(tmp_path), "a", b"12345")
    storage.write_new(str(tmp_path / "b"), b"1")
    assert storage.read(str(tmp_path / "a")) == b"12345" and entry.bytes == 5
    assert storage.names(str(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("folder", [True, False])
def test_a_failing_device_is_an_error(tmp_path, monkeypatch, number, folder):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number, lambda d: is_folder(d) == folder))
    with pytest.raises(OSError, match=os.strerror(number)):
        snapshot.write_file(str(tmp_path), "a", b"12345")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_a_build_without_locks_continues_with_a_warning(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, number, lambda _: True))
    with run_lock.held(str(tmp_path)):
        pass
    assert "does not support locks" in capsys.readouterr().err
    assert storage.names(str(tmp_path)) == []


def test_other_lock_errors_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, errno.EIO, lambda _: True))
    with (
        pytest.raises(snapshot.SnapshotError, match="Input/output error"),
        run_lock.held(str(tmp_path)),
    ):
        pass


def test_a_held_lock_means_another_build(tmp_path):
    with (
        run_lock.held(str(tmp_path)),
        pytest.raises(snapshot.SnapshotError, match="another command is writing"),
        run_lock.held(str(tmp_path)),
    ):
        pass


def test_a_lock_removed_by_its_holder_is_acquired_again(tmp_path, monkeypatch):
    real, calls = fcntl.flock, []

    def flock(descriptor, operation):
        if not calls:  # The holder removes the file between this process's open and lock.
            os.remove(tmp_path / snapshot.LOCK_NAME)
        calls.append(descriptor)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock.held(str(tmp_path)):
        assert len(calls) == 2
        assert storage.names(str(tmp_path)) == [snapshot.LOCK_NAME]
