"""Mutual exclusion of runs in a folder: a kernel lock on a disk, a lease in a bucket.

The kernel releases its lock when the process ends, however it ends. A bucket has no locks, so
the lease is an object that only one run can create. Its owner rewrites it every RENEW_S seconds.
Another run that finds the object waits for such a renewal. If none comes, the owner has died. The
other run then takes the lease over by a conditional write, which only one run can win. No clocks
are compared.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator

from pipelines.messages import warn
from pipelines.processes.timeouts import Timeout
from pipelines.snapshots.snapshot import LOCK_NAME, SnapshotError
from pipelines.storage import bucket, storage, stores

RENEW_S = 5.0
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EBADF}
EXPIRE_S = 30.0  # seconds without a renewal after which a run has lost its lease


@contextlib.contextmanager
def held(folder: str) -> Iterator[None]:
    """Hold the folder's lock, creating the folder if it does not exist.

    Raises:
      SnapshotError: another run holds the lock, or the folder cannot be written.
    """
    if storage.in_bucket(folder):
        with _leased(folder):
            yield
    else:
        with _locked(folder):
            yield


def clear(folder: str) -> None:
    """Remove a lock that a killed run left in a finished folder, unless a live run holds it."""
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
            if not _is_at(descriptor, path):  # The previous owner has removed the file meanwhile.
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
        warn(
            f"warning: the file system of {folder!r} does not support locks ({error.strerror}): "
            "make sure that no other command writes to the folder"
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
        ended.set()  # The interrupt may precede the call in the `finally` block.
        if not lease.lost:
            raise
    if lease.lost:
        raise SnapshotError(
            f"another build took over {folder!r}, because {LOCK_NAME} was not renewed for "
            f"{EXPIRE_S:g} s: let the other build finish"
        )


class _Lease:
    """A lock on a folder in a bucket."""

    def __init__(self, folder: str) -> None:
        """Acquire the lease.

        Raises:
          SnapshotError: another run holds the lease, or the folder cannot be written.
        """
        self._path = f"{folder}/{LOCK_NAME}"
        self.lost = False
        try:
            try:
                self._write(stores.NEW)
            except FileExistsError:
                self._write(self._dead(folder))
            self._check_store(folder)
        except FileExistsError:
            raise _in_use(folder) from None
        except OSError as error:
            raise _cannot_write(folder, error) from None

    def _check_store(self, folder: str) -> None:
        """Check that the store refuses to create an existing object: some S3 servers do not.

        Raises:
          SnapshotError: it does not, so the lease would exclude no other run.
        """
        try:
            bucket.write(self._path, b"", stores.NEW)
        except FileExistsError:
            return
        bucket.delete(self._path)
        raise SnapshotError(
            f"the store of {folder!r} ignores conditional writes (If-None-Match), so two commands "
            "could write to the folder at once: choose a folder on a disk and copy it when complete"
        )

    def _write(self, generation: str) -> None:
        """Write the lease in place of a generation. Its content is new in each renewal.

        In S3, the generation is a hash of the content. A renewal must change it.
        """
        owner = {"host": socket.gethostname(), "process": os.getpid(), "renewal": uuid.uuid4().hex}
        self._generation = bucket.write(self._path, json.dumps(owner).encode(), generation)

    def _dead(self, folder: str) -> str:
        """Return the generation of a dead run's lease, or NEW if the lease was deleted meanwhile.

        Raises:
          SnapshotError: the owner renewed the lease.
        """
        warn(f"waiting up to {EXPIRE_S:g} s to check whether the owner of {self._path} is alive")
        try:
            found = bucket.stat(self._path).generation
            # A pause may stop the owner as long as this process, so Timeout omits that time.
            timeout = Timeout(EXPIRE_S)
            while timeout.sleep(RENEW_S / 2):
                if bucket.stat(self._path).generation != found:
                    raise _in_use(folder)
        except FileNotFoundError:
            return stores.NEW
        return found

    def keep(self, ended: threading.Event) -> None:
        """Renew the lease until the run ends, and interrupt the run if the lease is lost."""
        while not ended.wait(RENEW_S):
            try:
                self._write(self._generation)
            except FileExistsError:
                self.lost = True
                break
            except OSError:  # The bucket may be reachable again before the lease expires.
                continue
        while self.lost:
            os.kill(os.getpid(), signal.SIGINT)
            # The signal is repeated, because Python drops exceptions raised in some places.
            if ended.wait(RENEW_S):
                return

    def give_back(self) -> None:
        if not self.lost:
            with contextlib.suppress(OSError):  # Another run owns the lease, or it expires.
                bucket.delete(self._path, self._generation)


def _in_use(folder: str) -> SnapshotError:
    return SnapshotError(
        f"another command is writing to {folder!r} (it holds {LOCK_NAME}): "
        "wait until it ends, or choose another folder"
    )


def _cannot_write(folder: str, error: OSError) -> SnapshotError:
    return SnapshotError(
        f"cannot write to {folder!r} ({error.strerror}): choose a writable folder with free space"
    )
