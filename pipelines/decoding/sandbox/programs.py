"""The client side of running other programs in the sandbox."""

import contextlib
import os
import re
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipelines.decoding.sandbox import fork_client as sandbox
from pipelines.decoding.sandbox.launcher import FIRST
from pipelines.processes import child_python
from pipelines.processes.timeouts import Timeout

_LINKED_SECONDS = 30.0
# The first is for the loader, the second for C++, which aborts without a source of randomness.
_HARMLESS = ("/etc/ld.so.cache", "/dev/urandom")
LAUNCHER = child_python.command("pipelines.decoding.sandbox.launcher")


class Program(NamedTuple):
    """A program and the files that its start needs."""

    path: str
    loaders: tuple[str, ...] = ()  # paths of loaders, one of which the kernel starts with it
    libraries: tuple[str, ...] = ()
    unconfined: str = ""  # why Landlock and seccomp cannot be applied; "" if they can

    @property
    def missing(self) -> dict[str, str]:
        """The layers in which it cannot run, with the reasons."""
        return dict.fromkeys(("landlock", "seccomp"), self.unconfined) if self.unconfined else {}


__all__ = ["FIRST", "Program", "Run", "linked", "started"]


class Run:
    """A running program. `log` is the read end of its standard error."""

    def __init__(self, server: sandbox.ForkServer, log: int) -> None:
        self._server, self.log = server, log
        self.gone = False

    def status(self, timeout: Timeout) -> int | None:
        """Return its exit status in subprocess's form; None if it does not exit in time."""
        status = self._server.status(timeout)
        self.gone = status is not None
        return status


def linked(path: str, environment: Mapping[str, str]) -> Program:
    """Return a program with its loader and libraries, as the loader itself finds them.

    This runs a program that has no loader. Without arguments, the program has nothing to process.
    """
    asked = {**environment, "LD_TRACE_LOADED_OBJECTS": "1"}
    try:
        with subprocess.Popen(
            [path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=asked,
        ) as child:
            said = Timeout(_LINKED_SECONDS).communicate(child)[0].decode(errors="surrogateescape")
    except (OSError, subprocess.SubprocessError):
        return Program(path)
    loaders = re.findall(r"^\t(/.*) \(0x[0-9a-f]+\)$", said, re.MULTILINE)
    libraries = re.findall(r"^\t\S+ => (/.*) \(0x[0-9a-f]+\)$", said, re.MULTILINE)
    return Program(path, tuple(loaders), tuple(libraries))


@contextlib.contextmanager
def started(
    program: Program,
    arguments: Sequence[str],
    descriptors: Sequence[int],
    *,
    environment: Mapping[str, str],
    limits: Sequence[tuple[int, int, int]] = (),
    opens: Sequence[int] = (),
    required: bool = False,
) -> Iterator[Run]:
    """Start a program in all available layers of the sandbox, yield it, and end it afterwards.

    Args:
      program: the program.
      arguments: its arguments without its name.
      descriptors: open files for the program, where their numbers start at FIRST.
      environment: its complete environment.
      limits: kind (resource.RLIMIT_), soft value and hard value of each limit.
      opens: numbers, in the program, of the descriptors whose files it may also open by path.
      required: whether every layer must hold.

    Raises:
      UnconfinedError: a layer is missing, and all are required.
      OSError: the program cannot be started, or the process that forks it has died.
    """
    sandbox.seen.update(program.missing)
    if required and program.missing:
        raise sandbox.UnconfinedError(program.missing)
    request = {
        "program": program.path,
        "words": [program.path, *arguments],
        "environment": environment,
        "limits": limits,
        "confined": not program.unconfined,
        "loaders": program.loaders,
        "read": [*_HARMLESS, *program.libraries, *opens],
    }
    with contextlib.ExitStack() as opened:
        server = sandbox.acquire(LAUNCHER, required)
        log, writer = os.pipe()
        opened.callback(os.close, log)
        failure, its_failure = os.pipe()
        opened.callback(os.close, failure)
        run = Run(server, log)
        try:
            server.begin(request, [writer, its_failure, *descriptors])
            os.close(writer)
            os.close(its_failure)
            yield run
            if run.gone and (why := os.read(failure, 4)):
                number = struct.unpack("<i", why)[0]
                raise OSError(number, os.strerror(number), program.path)
        finally:
            if run.gone:
                sandbox.release(server)
            else:
                server.end()
