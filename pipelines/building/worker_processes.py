"""Worker processes of a build on this machine, their deaths, and the log of a build's engine."""

import contextlib
import logging
import os
import re
import shlex
import subprocess
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.transforms.environments import Environment, SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from pipelines.messages import LOGGER
from pipelines.processes import child_python

_URN = "svilm:worker_process:v1"
_ENDING_S = 10.0  # maximum wait for a worker to end its current work item
_ERROR = re.compile(r"Fatal Python error|[\w.]*(Error|Exception)\b")  # at the end of a trace
_LIBRARIES = ("apache_beam", "grpc")


class EngineLog:
    """A file with the messages of a build's engine and the output of its worker processes.

    It is removed unless `keep` is called.
    """

    def __init__(self, path: str, format_message: logging.Formatter) -> None:
        self.path = path
        self._kept = False
        self._handler = logging.FileHandler(path, encoding="utf-8", errors="replace")
        self._handler.setLevel(logging.WARNING)
        self._handler.setFormatter(format_message)

    def __enter__(self) -> "EngineLog":
        # Beam hands the workers' log messages on to this process's loggers.
        logging.getLogger().addHandler(self._handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()
        if not self._kept:
            self.remove()

    def keep(self, error: BaseException | None = None) -> str:
        """Keep the file after the build, with an exception's traceback; return its path."""
        self._kept = True
        if error is not None:
            with open(self.path, "a", encoding="utf-8", errors="replace") as file:
                traceback.print_exception(error, file=file)
        return self.path

    def last_error(self) -> str:
        """Return the last line that names an exception, at most 200 characters; "" without one."""
        with open(self.path, encoding="utf-8", errors="replace") as file:
            errors = [line.strip() for line in file if _ERROR.match(line)]
        return errors[-1][:200] if errors else ""

    def remove(self) -> None:
        """Remove the file."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path)


def engine_log(format_message: logging.Formatter) -> EngineLog:
    """Create an empty log in the folder for temporary files.

    Args:
      format_message: the formatter of log messages.
    """
    descriptor, path = tempfile.mkstemp(prefix="svilm-pipelines-workers-", suffix=".log")
    os.close(descriptor)
    return EngineLog(path, format_message)


def command(log: str) -> str:
    """Return the shell command of Beam's worker process, whose stderr is appended to a file.

    The worker ignores Ctrl-C, which the main process handles. Exceptions of work items reach the
    main process and are reported there, once.
    """
    worker = shlex.join([*child_python.command("pipelines.building.sdk_worker"), str(os.getpid())])
    return f"trap '' INT; exec {worker} 2>>{shlex.quote(log)}"


@Environment.register_urn(_URN, bytes)
class WorkerProcess(SubprocessSDKEnvironment):  # pyright: ignore[reportGeneralTypeIssues]
    """The environment of Beam's worker processes, whose deaths this module notices."""

    def to_runner_api_parameter(self, context: object) -> tuple[str, bytes]:
        """Return the name of the environment and its command."""
        return _URN, self.command_string.encode()


@worker_handlers.WorkerHandler.register_environment(_URN, bytes)
class _WorkerProcessHandler(worker_handlers.GrpcWorkerHandler):
    """Beam's connection to a worker process.

    Beam's own class waits forever for a worker that died, and at the end of a build for one that
    has not connected yet.
    """

    def __init__(self, command: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._command, self._stopping = command.decode(), False

    def start_worker(self) -> None:
        """Start the process, and a thread that waits for its end."""
        options = self.provision_info.provision_info.pipeline_options
        control, logs = self.control_api_service_descriptor(), self.logging_api_service_descriptor()
        environment = os.environ | {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(logs),
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
        }
        with worker_handlers.SUBPROCESS_LOCK:
            self._process = subprocess.Popen(["/bin/sh", "-c", self._command], env=environment)
        self._waiting = threading.Thread(target=self._wait)
        self._waiting.start()

    def stop_worker(self) -> None:
        """Wait until the process ends, which its closed connection causes, or kill it."""
        self._stopping = True
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:  # Files are renamed only once they are complete.
            self._process.kill()
        self._waiting.join()

    def _wait(self) -> None:
        status = self._process.wait()
        if status and not self._stopping:
            for on_death in _on_death:
                on_death(f"a worker process ended with exit status {status}")


_on_death: list[Callable[[str], None]] = []


@contextlib.contextmanager
def deaths(on_death: Callable[[str], None]) -> Iterator[None]:
    """Call a function when a worker process fails, from another thread, while active.

    Args:
      on_death: called with a message that ends with the exit status.
    """
    _on_death.append(on_death)
    try:
        yield
    finally:
        _on_death.remove(on_death)


def log_failed_threads() -> None:
    """Log the exceptions of Beam's and gRPC's own threads, instead of printing tracebacks.

    Some of these threads raise when a worker process or a job service ends, and the run itself
    reports that. They may do so until the process exits, so the hook stays until then. All other
    exceptions reach the hook before it.
    """
    before = threading.excepthook
    if getattr(before, "logs_libraries", False):
        return

    def hook(raised: threading.ExceptHookArgs) -> None:
        if _is_of_library(raised.exc_traceback):
            LOGGER.warning("a thread of the engine failed", exc_info=raised.exc_value)
        else:
            before(raised)

    hook.logs_libraries = True  # type: ignore[attr-defined]
    threading.excepthook = hook


def _is_of_library(trace: TracebackType | None) -> bool:
    """Return whether a thread's own function, the first outside `threading`, is a library's."""
    while trace is not None:
        package = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("threading", "concurrent"):
            return package in _LIBRARIES
        trace = trace.tb_next
    return False
