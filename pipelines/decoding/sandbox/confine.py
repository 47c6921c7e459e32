"""Application of the layers: first to the process that forks, then to its child."""

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Mapping, Sequence

from pipelines.decoding.sandbox import (
    kernel,
    landlock,
    namespaces,
    privileges,
    seccomp,
    secret_start,
    system_calls,
)


class Confinement:
    """The layers of this machine. `missing` maps each layer to "" or to why it is missing."""

    def __init__(self) -> None:
        """Apply the layers that children inherit, and test which others are available.

        Beware: if the kernel grants a PID namespace, this returns in a new process. The calling
        process waits for that process and exits with it.
        """
        self.missing = namespaces.enter()
        if not self.missing["pid_namespace"]:
            _continue_as_first()
        self.missing["no_new_privs"] = _tried(privileges.forbid_new)
        self.missing["capabilities"] = _tried(privileges.drop_capabilities)
        self._landlock = 0
        self.missing["landlock"] = _tried(self._look_for_landlock)
        self.missing |= self._try_out("landlock", self.apply_landlock, _opens)
        self.missing |= self._try_out("seccomp", self.apply_seccomp, _connects)

    def compute_only(self) -> None:
        """Leave this process only its open files and its memory.

        Raises:
          OSError: a layer that this machine has cannot be applied here.
        """
        self.apply_landlock()
        # These limits forbid new files and processes even if a layer is missing.
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        self.apply_seccomp()

    def become(
        self,
        program: str,
        words: Sequence[str],
        environment: Mapping[str, str],
        *,
        loaders: Sequence[str],
        read: Sequence[str | int],
    ) -> None:
        """Replace this process by a confined program, which keeps the inheritable open files.

        Args:
          program: the program's path.
          words: its arguments, starting with its name.
          environment: its complete environment.
          loaders: other programs that the kernel starts with it.
          read: files, by path or descriptor, that it may open for reading, besides itself.

        Raises:
          OSError: the program cannot be started, or a layer of this machine cannot be applied.
        """
        if self.missing["seccomp"]:
            self.apply_landlock(read, (program, *loaders))
            os.execve(program, [*words], environment)
        start = secret_start.prepared(program, words, environment)
        self.apply_landlock(read, (program, *loaders))
        self.apply_seccomp_to_program(start)
        secret_start.go(start)

    def apply_landlock(self, read: Sequence[str | int] = (), execute: Sequence[str] = ()) -> None:
        """Apply Landlock, if available; see landlock.restrict."""
        if not self.missing["landlock"]:
            landlock.restrict(self._landlock, read=read, execute=execute)

    def apply_seccomp(self) -> None:
        """Apply seccomp for a process that only computes; see system_calls."""
        with contextlib.suppress(OSError):  # This is no layer, because seccomp forbids tracing too.
            privileges.forbid_tracing()
        if not self.missing.get("seccomp"):
            seccomp.restrict(system_calls.computing(os.getpid()))

    def apply_seccomp_to_program(self, start: system_calls.Start) -> None:
        """Apply seccomp for a process that becomes a program by one `execve`."""
        if not self.missing["seccomp"]:
            seccomp.restrict(system_calls.running(os.getpid(), start))

    def _look_for_landlock(self) -> None:
        self._landlock = landlock.version()

    def _try_out(
        self, layer: str, apply: Callable[[], None], forbidden: Callable[[], None]
    ) -> dict[str, str]:
        """Test a layer in a child, which then tries what the layer forbids."""
        if self.missing.get(layer):
            return {layer: self.missing[layer]}
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                why = _tried(apply)
                if not why:
                    with contextlib.suppress(PermissionError):
                        forbidden()
                        why = "it does not confine"
                os.write(writer, why.encode() or b"\0")
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            reason = answer.read()
        os.waitpid(child, 0)
        if reason == b"\0":
            return {layer: ""}
        return {layer: reason.decode() or "a process that applies it dies"}


def _continue_as_first() -> None:
    """Continue as the first process of the namespace, whose end kills all others in it."""
    first = os.fork()
    if first:
        os.closerange(0, 1 << 16)  # Otherwise the requesting process would not see them close.
        status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        os._exit(status if status >= 0 else 1)


def _tried(apply: Callable[[], None]) -> str:
    try:
        apply()
    except OSError as error:
        return error.strerror or str(error)
    except kernel.MissingError as error:
        return str(error)
    return ""


def _opens() -> None:
    os.close(os.open("/", os.O_RDONLY))


def _connects() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
