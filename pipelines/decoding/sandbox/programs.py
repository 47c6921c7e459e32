"""Other programs run confined, as seen from who wants something of them."""

import contextlib
import os
import re
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipelines.decoding.sandbox import fork_server as sandbox
from pipelines.decoding.sandbox.launcher import FIRST
from pipelines.processes import child_python
from pipelines.processes.timeouts import Patience

_LINKED_SECONDS = 30.0
# For the loader; and for C++, which ends a program that it cannot give chance.
_HARMLESS = ("/etc/ld.so.cache", "/dev/urandom")
LAUNCHER = child_python.command("pipelines.decoding.sandbox.launcher")


class Program(NamedTuple):
    """A program, and what it wants to be started."""

    path: str
    loaders: tuple[str, ...] = ()  # the kernel starts one of them with it
    libraries: tuple[str, ...] = ()
    unconfined: str = ""  # why Landlock and seccomp cannot be put on it, if they cannot

    @property
    def missing(self) -> dict[str, str]:
        """The layers that it cannot run in, and why."""
        return dict.fromkeys(("landlock", "seccomp"), self.unconfined) if self.unconfined else {}


__all__ = ["FIRST", "Program", "Run", "linked", "started"]


class Run:
    """A program at work. `log` is the read end of its standard error."""

    def __init__(self, nursery: sandbox.Nursery, log: int) -> None:
        self._nursery, self.log = nursery, log
        self.gone = False

    def status(self, patience: Patience) -> int | None:
        """Its exit status, as subprocess has it; None if it does not end in time."""
        status = self._nursery.status(patience)
        self.gone = status is not None
        return status


def linked(path: str, environment: Mapping[str, str]) -> Program:
    """A program with its loader and libraries, as the loader itself finds them.

    One that has none is run by this, to no end that it could reach: it is given no arguments.
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
            said = Patience(_LINKED_SECONDS).answer(child)[0].decode(errors="surrogateescape")
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
    """A program at work, in as many layers of the sandbox as there are; it is gone afterwards.

    Args:
      program: it.
      arguments: for it, without its name.
      descriptors: open files for it, which there have the numbers FIRST and so on.
      environment: all of it.
      limits: of each its kind (resource.RLIMIT_), its soft and its hard value.
      opens: of the descriptors, by their numbers there, those whose files it may open by path.
      required: whether every layer must hold.

    Raises:
      UnconfinedError: a layer is missing, and all are required.
      OSError: it cannot be started, or the process that forks it has died.
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
        nursery = sandbox.take(LAUNCHER, required)
        log, theirs = os.pipe()
        opened.callback(os.close, log)
        failure, its_failure = os.pipe()
        opened.callback(os.close, failure)
        run = Run(nursery, log)
        try:
            nursery.begin(request, [theirs, its_failure, *descriptors])
            os.close(theirs)
            os.close(its_failure)
            yield run
            if run.gone and (why := os.read(failure, 4)):
                number = struct.unpack("<i", why)[0]
                raise OSError(number, os.strerror(number), program.path)
        finally:
            if run.gone:
                sandbox.give_back(nursery)
            else:
                nursery.end()
