"""Keeps a second run out of a folder: the kernel's lock on a disk, a lease in a bucket.

The kernel lets go of its lock when a process ends, however it ends. A bucket has no such thing: its
lock is an object that only one run can create, and which that run writes anew every few seconds.
Who finds it there waits for that to happen; if it does not, the run has died, and who finds it
takes it over, on condition that nobody was faster. No clocks are compared.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from pipelines.processes.timeouts import Patience
from pipelines.snapshots.snapshot import LOCK_NAME, SnapshotError
from pipelines.storage import bucket, storage

RENEW_S = 5.0
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EBADF}
EXPIRE_S = 30.0  # a run that could not renew its lease for so long has lost it


@contextlib.contextmanager
def held(folder: str) -> Iterator[None]:
    """Makes the folder if need be and keeps other runs out of it.

    Raises:
      SnapshotError: another run holds it, or the folder cannot be written.
    """
    if storage.in_bucket(folder):
        with _leased(folder):
            yield
    else:
        with _locked(folder):
            yield


def clear(folder: str) -> None:
    """Removes the lock that a killed run left in a finished folder; a run at work keeps its own."""
    if storage.exists(os.path.join(folder, LOCK_NAME)):
        with contextlib.suppress(SnapshotError), held(folder):
            pass


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    path = os.path.join(folder, LOCK_NAME)
    while True:
        try:
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _cannot_write(folder, error) from None
        try:
            _lock(descriptor, folder)
            if not _is_at(descriptor, path):  # whoever held it has removed it meanwhile
                continue
            try:
                yield
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, folder: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(folder) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _cannot_write(folder, error) from None
        print(
            f"warning: the file system of {folder!r} has no locks ({error.strerror}): make sure "
            "that no other command writes there",
            file=sys.stderr,
            flush=True,
        )


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _leased(folder: str) -> Iterator[None]:
    lease = _Lease(folder)
    ended = threading.Event()
    renewing = threading.Thread(target=lease.keep, args=(ended,), daemon=True)
    renewing.start()
    try:
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            lease.give_back()
    except KeyboardInterrupt:
        ended.set()  # it may have come just before the line above
        if not lease.lost:
            raise
    if lease.lost:
        raise SnapshotError(
            f"another build took {folder!r} over, as this one could not renew {LOCK_NAME} for "
            f"{EXPIRE_S:g} s: leave it to that one"
        )


class _Lease:
    """The lock in a bucket's folder."""

    def __init__(self, folder: str) -> None:
        """Takes it.

        Raises:
          SnapshotError: another run holds it, or the folder cannot be written.
        """
        self._path = f"{folder}/{LOCK_NAME}"
        self._text = json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode()
        self.lost = False
        try:
            try:
                self._generation = bucket.write(self._path, self._text, generation="0")
            except FileExistsError:
                self._generation = bucket.write(self._path, self._text, self._dead(folder))
        except FileExistsError:
            raise _in_use(folder) from None
        except OSError as error:
            raise _cannot_write(folder, error) from None

    def _dead(self, folder: str) -> str:
        """The generation of a lock whose run has died; "0" if it ends meanwhile."""
        print(
            f"waiting {EXPIRE_S:g} s to see whether the build that holds {self._path} goes on",
            file=sys.stderr,
            flush=True,
        )
        try:
            found = bucket.stat(self._path).generation
            patience = Patience(EXPIRE_S)  # who holds it may be stopped as long as this one
            while patience.sleeps(RENEW_S / 2):
                if bucket.stat(self._path).generation != found:
                    raise _in_use(folder)
        except FileNotFoundError:
            return "0"
        return found

    def keep(self, ended: threading.Event) -> None:
        """Renews the lease until the run has ended; interrupts the run if it is lost."""
        while not ended.wait(RENEW_S):
            try:
                self._generation = bucket.write(self._path, self._text, self._generation)
            except FileExistsError:
                self.lost = True
                break
            except OSError:  # in time it may be reached again
                continue
        while self.lost:
            os.kill(os.getpid(), signal.SIGINT)
            if ended.wait(RENEW_S):  # one can get lost where Python drops what is raised
                return

    def give_back(self) -> None:
        if not self.lost:
            with contextlib.suppress(OSError):  # it is another's by now, or expires
                bucket.delete(self._path, self._generation)


def _in_use(folder: str) -> SnapshotError:
    return SnapshotError(
        f"another command writes to {folder!r} (it holds {LOCK_NAME}): "
        "wait for it, or choose another folder"
    )


def _cannot_write(folder: str, error: OSError) -> SnapshotError:
    return SnapshotError(
        f"cannot write to {folder!r} ({error.strerror}): name a folder that can be "
        "written and has room"
    )
