"""The client side of the processes that fork confined children."""

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
from pipelines.processes.timeouts import Timeout

_READY_SECONDS = 60.0  # maximum time to load what children need; usually some tenths of a second
_MESSAGE_BYTES = 1 << 16
# The only variables that a child inherits: no user name, token or user's path.
_ENVIRONMENT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME")


class UnconfinedError(OSError):
    """A required layer of the sandbox that is missing."""

    def __init__(self, missing: Mapping[str, str]) -> None:
        super().__init__(errno.EPERM, f"{described(missing)}; --require-sandbox forbids decoding")
        self.filename = "the sandbox"


class ForkServer:
    """A process that has loaded its children's modules, and forks them one at a time."""

    def __init__(self, program: Sequence[str]) -> None:
        """Start the process.

        Raises:
          OSError: the process exits at once.
        """
        self.program = tuple(program)
        self.socket, child_end = socket.socketpair()
        self.process = subprocess.Popen(
            self.program,
            stdin=child_end.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Its children die with it, but not of Ctrl-C.
        )
        child_end.close()
        try:
            size = struct.unpack("<I", self._received(4, Timeout(_READY_SECONDS)))[0]
            words = self._received(min(size, _MESSAGE_BYTES), Timeout(_READY_SECONDS))
            self.missing: dict[str, str] = {
                layer: why for layer, why in json.loads(words)["missing"].items() if why
            }
        except BaseException:
            self.end()
            raise
        seen.update(self.missing)

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.process.poll() is None

    def begin(self, request: Mapping[str, Any], descriptors: Iterable[int]) -> None:
        """Send a request and its open descriptors, for which the process forks a child."""
        words = json.dumps(request).encode()
        # If the process has died, `status` raises the error.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.socket, [struct.pack("<I", len(words))], [*descriptors])
            self.socket.sendall(words)

    def status(self, timeout: Timeout) -> int | None:
        """Return the child's exit status in subprocess's form; None if it does not exit in time.

        Raises:
          OSError: the process that forks has died.
        """
        try:
            (status,) = struct.unpack("<i", self._received(4, timeout))
        except TimeoutError:
            return None
        return os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Kill the process and its child."""
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _received(self, size: int, timeout: Timeout) -> bytes:
        words = b""
        while len(words) < size:
            if not timeout.wait_readable(self.socket.fileno()):
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
"""Layers that were missing in this process's fork servers, with the reasons."""

# Nurseries are kept, because loading PyAV takes 0.1 s and a fork only a few milliseconds.
_idle: list[ForkServer] = []
_idle_lock = threading.Lock()


def acquire(program: Sequence[str], required: bool) -> ForkServer:
    """Return an idle server, or a new one.

    Args:
      program: the command line of the server's program.
      required: whether every layer of the sandbox must hold.

    Raises:
      UnconfinedError: a layer of the sandbox is missing, and all are required.
      OSError: a new server exits at once.
    """
    server = _found_idle(tuple(program)) or ForkServer(program)
    if required and server.missing:
        release(server)
        raise UnconfinedError(server.missing)
    return server


def release(server: ForkServer) -> None:
    """Keep a server, whose child has exited, for the next request."""
    with _idle_lock:
        _idle.append(server)


@atexit.register
def end_idle() -> None:
    """Kill all idle fork servers."""
    with _idle_lock:
        while _idle:
            _idle.pop().end()


@functools.cache
def missing_here() -> Mapping[str, str]:
    """Return the layers that are missing on this machine, with reasons, from a test process."""
    probe = ForkServer(child_python.command("pipelines.decoding.sandbox.probe"))
    probe.end()
    return probe.missing


def described(missing: Mapping[str, str]) -> str:
    """Return a message that names the missing layers.

    >>> described({"landlock": "Function not implemented"})
    'missing sandbox layers: landlock (Function not implemented)'
    """
    return "missing sandbox layers: " + ", ".join(
        f"{layer} ({why})" for layer, why in missing.items()
    )


def _found_idle(program: tuple[str, ...]) -> ForkServer | None:
    with _idle_lock:
        while fitting := [server for server in _idle if server.program == program]:
            server = fitting[-1]
            _idle.remove(server)
            if server.alive:
                return server
            server.end()
    return None
