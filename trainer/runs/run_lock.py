"""Lock of a run's folder, which keeps out a second command while one writes.

On a disk it is the kernel's lock on run.lock, which ends with its process in any case. Buckets and
some network file systems have no locks. There run.lock is a lease, which its process renews every
few seconds. A second command that finds a lease waits for a renewal. Without one, the process has
died, and the command takes the lease over. It compares no clocks.

run.lock describes its holder: {"command", "host", "process", "since"}.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from trainer.data.folder import in_bucket
from trainer.errors import ExitCode, UserError
from trainer.progress import warn
from trainer.runs.lease_files import BucketFile, DiskFile, LeaseFile
from trainer.runs.run_path import RunPath

NAME = "run.lock"
RENEW_S = 5.0
EXPIRE_S = 30.0  # a process that fails to renew its lease for this long has lost it

# Error numbers of file systems without locks.
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


# File descriptors of held locks. A forked child inherits them, and would keep the folder locked.
_descriptors: set[int] = set()


def _close_in_child() -> None:
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)


class LockedError(UserError, RuntimeError):
    """A folder that another command is writing to; the same command may succeed later."""

    exit_code = ExitCode.RUN_AGAIN


class LostError(LockedError):
    """A lease that another command has taken over."""


class Lock:
    """The kernel's lock, which cannot be lost."""

    def check(self) -> None:
        """Raise LostError if another command has taken the folder over."""


@contextlib.contextmanager
def held(folder: RunPath, command: str) -> Iterator[Lock]:
    """Create the folder if necessary, and keep other commands out of it.

    A folder that was created only for the lock is removed again.

    Args:
      folder: the folder to write to.
      command: the command's name, for the message to others.

    Raises:
      LockedError: another command is writing to it; nothing in it was changed.
      OSError: it cannot be written.
    """
    about = {
        "command": command,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    with contextlib.ExitStack() as cleanup:
        if in_bucket(folder):
            yield cleanup.enter_context(
                _leased(folder, BucketFile(os.fspath(folder / NAME)), about)
            )
            return
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            cleanup.callback(_remove_if_empty, folder)
        path = os.fspath(folder / NAME)
        if not _has_locks(path):
            warn(
                f"svilm-train: the file system of {folder} has no locks: {NAME} is renewed every "
                f"{RENEW_S:g} s instead"
            )
            yield cleanup.enter_context(_leased(folder, DiskFile(path), about))
            return
        descriptor = _lock(folder, path)
        cleanup.callback(_unlock, descriptor)
        cleanup.callback(_remove, path)  # still locked, so it cannot be another command's file
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)
        yield Lock()


def _has_locks(path: str) -> bool:
    """Try the file system's locks on a file of another name beside `path`."""
    probe = f"{path}.{os.getpid()}.{threading.get_ident()}"
    try:
        with open(probe, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    finally:
        _remove(probe)
    return True


def _lock(folder: RunPath, path: str) -> int:
    """Lock a file and return its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            if not isinstance(error, BlockingIOError | PermissionError):
                raise OSError(error.errno, error.strerror, path) from None
            raise _in_use(os.fspath(folder), holder) from None
        # The previous holder may have removed the file after this process opened it.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                _descriptors.add(descriptor)
                return descriptor
        os.close(descriptor)


def _unlock(descriptor: int) -> None:
    _descriptors.discard(descriptor)  # first, as another file may get its number at once
    os.close(descriptor)


@contextlib.contextmanager
def _leased(folder: RunPath, file: LeaseFile, about: dict[str, Any]) -> Iterator[Lock]:
    lease = _Lease(os.fspath(folder), file, about)
    ended = threading.Event()
    renewing = threading.Thread(target=lease.keep, args=(ended,), daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join()
        lease.give_back()


class _Lease(Lock):
    def __init__(self, folder: str, file: LeaseFile, about: dict[str, Any]) -> None:
        """Take the lease.

        Raises:
          LockedError: another process holds it.
          OSError: the folder cannot be written.
        """
        self._folder, self._file, self._about = folder, file, about
        self._renewals = 0
        self._lost = False
        self._one_at_a_time = threading.Lock()
        try:
            try:
                self._version = file.create(self._text())
            except FileExistsError:
                self._version = file.replace(self._text(), self._wait_for_its_death())
        except FileExistsError:
            raise _in_use(folder, self._read_holder()) from None
        self._renewed = time.monotonic()

    def _text(self) -> bytes:
        return json.dumps(self._about | {"renewals": self._renewals}).encode()

    def _read_holder(self) -> bytes:
        try:
            return self._file.read()[0]
        except OSError:
            return b""

    def _wait_for_its_death(self) -> str:
        """Return the version of an expired lease; "" if its holder released it meanwhile."""
        warn(
            f"svilm-train: waiting {EXPIRE_S:g} s to check whether {_holder(self._read_holder())} "
            f"is still writing to {self._folder}"
        )
        try:
            text, found = self._file.read()
            until = time.monotonic() + EXPIRE_S
            while time.monotonic() < until:
                time.sleep(RENEW_S / 2)
                text, version = self._file.read()
                if version != found:
                    raise _in_use(self._folder, text)
        except FileNotFoundError:
            return ""
        return found

    def keep(self, ended: threading.Event) -> None:
        """Renew the lease until the command has ended, or the lease is lost."""
        while not ended.wait(RENEW_S) and not self._lost:
            self._renew()

    def _renew(self) -> None:
        with self._one_at_a_time:
            self._renewals += 1
            try:
                self._version = self._file.replace(self._text(), self._version)
                self._renewed = time.monotonic()
            except (FileExistsError, FileNotFoundError):
                self._lost = True
            except OSError:  # the store may become reachable again in time
                pass

    def check(self) -> None:
        # A process that was suspended must check the lease before it writes.
        if not self._lost and time.monotonic() - self._renewed > EXPIRE_S / 2:
            self._renew()
        if self._lost:
            raise LostError(
                f"another command took over {self._folder}, because this one could not renew "
                f"{NAME} for {EXPIRE_S:g} s: run the same command again when the other has ended"
            )

    def give_back(self) -> None:
        if not self._lost:
            with contextlib.suppress(OSError):  # another process has it by now, or it expires
                self._file.delete(self._version)


def _holder(text: bytes) -> str:
    """Describe the holder of a lock.

    >>> _holder(b'{"command": "pretrain", "host": "a", "process": 7, "since": "2026-01-01T00:00"}')
    '`svilm-train pretrain` (process 7 on a, since 2026-01-01T00:00)'
    >>> _holder(b"")
    'another command'
    """
    try:
        about = json.loads(text)
        return (
            f"`svilm-train {about['command']}` (process {about['process']} on {about['host']}, "
            f"since {about['since']})"
        )
    except (ValueError, TypeError, KeyError):
        return "another command"


def _in_use(folder: str, holder: bytes) -> LockedError:
    return LockedError(
        f"{_holder(holder)} is writing to {folder}: run the same command again when it has ended, "
        "or give another --out"
    )


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)


def _remove_if_empty(folder: RunPath) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
