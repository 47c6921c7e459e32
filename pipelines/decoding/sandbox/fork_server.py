"""Processes that fork confined children, as seen from who wants something of a child."""

import atexit
import contextlib
import errno
import functools
import json
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.processes import child_python
from pipelines.processes.timeouts import Patience

_READY_SECONDS = 60.0  # to load what its children need; some tenths are usual
_MESSAGE_BYTES = 1 << 16
# All that a child may know of the environment: no name, no token, no path of the user's.
_ENVIRONMENT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME")


class UnconfinedError(OSError):
    """A layer of the sandbox is missing, and was asked for."""

    def __init__(self, missing: Mapping[str, str]) -> None:
        super().__init__(errno.EPERM, f"{told(missing)}; without --require-sandbox it would go on")
        self.filename = "the sandbox"


class Nursery:
    """A process that has loaded what its children need, and forks them one at a time."""

    def __init__(self, program: Sequence[str]) -> None:
        """Starts it.

        Raises:
          OSError: it ends at once.
        """
        self.program = tuple(program)
        self.socket, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            self.program,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # so that its children die with it, and not of Ctrl-C
        )
        theirs.close()
        try:
            size = struct.unpack("<I", self._received(4, Patience(_READY_SECONDS)))[0]
            words = self._received(min(size, _MESSAGE_BYTES), Patience(_READY_SECONDS))
            self.missing: dict[str, str] = {
                layer: why for layer, why in json.loads(words)["missing"].items() if why
            }
        except BaseException:
            self.end()
            raise
        seen.update(self.missing)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self.process.poll() is None

    def begin(self, request: Mapping[str, Any], descriptors: Iterable[int]) -> None:
        """Has a child forked for a request, which comes with open descriptors."""
        words = json.dumps(request).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # then it ended early
            socket.send_fds(self.socket, [struct.pack("<I", len(words))], [*descriptors])
            self.socket.sendall(words)

    def status(self, patience: Patience) -> int | None:
        """The child's exit status, as subprocess has it; None if it does not end soon.

        Raises:
          OSError: this process has died.
        """
        try:
            (status,) = struct.unpack("<i", self._received(4, patience))
        except TimeoutError:
            return None
        return os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Ends the process, and its child, at once."""
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _received(self, size: int, patience: Patience) -> bytes:
        words = b""
        while len(words) < size:
            if not patience.readable(self.socket.fileno()):
                raise TimeoutError(errno.ETIMEDOUT, "no answer", self.program[-1])
            part = b""
            with contextlib.suppress(ConnectionResetError):
                part = self.socket.recv(size - len(words))
            if not part:
                why = "the process that starts decoders has died"
                raise OSError(errno.ECHILD, why, self.program[-1])
            words += part
        return words


seen: dict[str, str] = {}
"""Layers that were missing in this process's nurseries, and why."""

# Loading PyAV takes a tenth of a second, a fork a few thousandths: so nurseries are kept.
_idle: list[Nursery] = []
_idle_lock = threading.Lock()


def take(program: Sequence[str], required: bool) -> Nursery:
    """A nursery that is idle, or a new one.

    Raises:
      UnconfinedError: a layer of the sandbox is missing, and all are required.
      OSError: a new one ends at once.
    """
    nursery = _found_idle(tuple(program)) or Nursery(program)
    if required and nursery.missing:
        give_back(nursery)
        raise UnconfinedError(nursery.missing)
    return nursery


def give_back(nursery: Nursery) -> None:
    """Keeps a nursery, whose child is gone, for the next request."""
    with _idle_lock:
        _idle.append(nursery)


@atexit.register
def end_idle() -> None:
    """Ends all nurseries that are idle."""
    with _idle_lock:
        while _idle:
            _idle.pop().end()


@functools.cache
def missing_here() -> Mapping[str, str]:
    """The layers that do not hold on this machine, and why, as a process that tries them finds."""
    probe = Nursery(child_python.command("pipelines.decoding.sandbox.probe"))
    probe.end()
    return probe.missing


def told(missing: Mapping[str, str]) -> str:
    """Which layers are missing, in words.

    >>> told({"landlock": "Function not implemented"})
    'there is no landlock (Function not implemented) here'
    """
    return (
        "there is no "
        + ", no ".join(f"{layer} ({why})" for layer, why in missing.items())
        + " here"
    )


def _found_idle(program: tuple[str, ...]) -> Nursery | None:
    with _idle_lock:
        while fitting := [nursery for nursery in _idle if nursery.program == program]:
            nursery = fitting[-1]
            _idle.remove(nursery)
            if nursery.alive:
                return nursery
            nursery.end()
    return None
