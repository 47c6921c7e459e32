"""Where a Beam graph runs: in this process, in several, or on an engine named by --runner."""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, TestOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.building import dataflow, job_service
from pipelines.processes import child_python

_REFUSED = {
    "DaskRunner": "it runs only the last output of a graph and ignores the others, silently",
}
# Beam's direct runner first tries to download and start a Go program; FnApiRunner is what it
# falls back to, and needs nothing.
_IN_PROCESS = (None, "DirectRunner", "FnApiRunner", "BundleBasedDirectRunner")


# Beam's threads that fail with a worker process or a job service, in the moment before the run:
# the beginnings of their names. Of gRPC's thread that waits for a channel, what it says.
_READERS = (
    "beam_control_read",
    "read_grpc_client_inputs",
    "read_state",
    "run_worker_",
    "wait_until_finish_",
)
_CHANNEL_CLOSED = "Cannot monitor channel state: Channel closed!"


class EngineError(ValueError):
    """Options that no engine knows, or an engine that must not be used."""


def choose(workers: int, arguments: Sequence[str]) -> tuple[PipelineRunner | str, PipelineOptions]:
    """The runner and its options: `arguments` are Beam's own.

    Raises:
      EngineError: Beam does not know an argument, or the runner is unknown, is refused, or
        has nothing that takes its jobs.
    """
    if unknown := _unknown(arguments):
        raise EngineError(
            f"unrecognised arguments: {' '.join(unknown)}: neither `svilm-pipelines build --help` "
            "nor Beam knows them"
        )
    options = PipelineOptions([*arguments])
    runner = _named(options.view_as(StandardOptions).runner)
    if runner in _REFUSED:
        raise EngineError(f"--runner {runner} is refused: {_REFUSED[runner]}; choose another")
    if runner not in _IN_PROCESS:
        if workers > 1:
            raise EngineError(
                f"--workers is for this machine; --runner {runner} has its own option"
            )
        try:
            job_service.check(runner, options)
            if runner == dataflow.RUNNER:
                options = PipelineOptions(dataflow.complete(arguments))
        except (job_service.JobServiceError, dataflow.JobError) as error:
            raise EngineError(str(error)) from None
        return runner, options
    if workers == 1:
        return FnApiRunner(), options
    processes = SubprocessSDKEnvironment.from_command_string(_worker_command())
    options = PipelineOptions([*arguments, f"--direct_num_workers={workers}"])
    return FnApiRunner(default_environment=processes), options


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Keeps temporary files in a folder that is removed: Beam leaves one of its own behind."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="svilm-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        _temporary.append(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before
            _temporary.clear()


_temporary: list[str] = []


def _leave(status: int) -> NoReturn:
    """Ends this process without its threads, which wait for one another."""
    for folder in _temporary:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(status)


def waits(options: PipelineOptions) -> bool:
    """Whether a run with these options ends when its job has ended, not when it is handed over."""
    dry = options.view_as(TestOptions).dry_run
    return not (dry or options.view_as(StandardOptions).no_wait_until_finish)


def _named(runner: str | None) -> str | None:
    """A runner by the name that Beam's messages have for it: to Beam, "flink" is FlinkRunner, too.

    Raises:
      EngineError: there is none of that name.
    """
    if runner is None:
        return None
    known = sorted(StandardOptions.KNOWN_RUNNER_NAMES)
    last = runner.rpartition(".")[2].lower()
    for name in (*known, *_REFUSED):
        if last in (name.lower(), name.lower().removesuffix("runner")):
            return name
    if "." in runner:  # a class of another's
        return runner
    raise EngineError(f"--runner {runner} is unknown; there are {', '.join(known)}")


def _worker_command() -> str:
    """Beam's own worker process, without its notes, and leaving Ctrl-C to the main process.

    What a work item raises reaches the main process and is told there, once.
    """
    notes = "" if os.environ.get("SVILM_TRACE") else " 2>/dev/null"
    worker = shlex.join(child_python.command("apache_beam.runners.worker.sdk_worker_main"))
    return f"trap '' INT; exec {worker}{notes}"


def end_with_workers(tell: Callable[[str], None]) -> None:
    """Ends this process, with status 1, when a worker process of FnApiRunner ends before its work.

    Beam would wait for its answers forever: the thread that watches the worker raises, alone.
    """

    def hook(raised: threading.ExceptHookArgs) -> None:
        name = raised.thread.name if raised.thread else ""
        if name == "run_worker" and str(raised.exc_value).endswith(f" {-signal.SIGINT}"):
            # Ctrl-C reached a worker before it left it to this process, whose turn it is now.
            os.kill(os.getpid(), signal.SIGINT)
        elif name == "run_worker":
            tell(str(raised.exc_value))
            _leave(1)  # files are whole at every moment
        elif not name.startswith(_READERS) and str(raised.exc_value) != _CHANNEL_CLOSED:
            threading.__excepthook__(raised)

    threading.excepthook = hook


@contextlib.contextmanager
def interruptible(workers: int, tell: Callable[[], None]) -> Iterator[None]:
    """Lets Ctrl-C end a run, with status 130.

    Beam would turn it into an error of its own, or wait for its worker processes.
    """
    pressed = False

    def handle(*_) -> None:
        nonlocal pressed
        pressed = True
        if workers > 1:
            tell()
            _leave(130)  # the workers end with the connection to this process
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Exception:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def cause(error: BaseException) -> str:
    """One line of an exception that Beam wrapped: what was raised, without the traces around it."""
    if isinstance(error, grpc.RpcError):
        return f"the engine's job service is gone ({job_service.reason(error)})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    line = re.sub(r" \[while running .*\]$", "", line)
    return re.sub(r"^(?:[a-z_]\w*\.)+([A-Z]\w*: )", r"\1", line).rstrip(".")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise EngineError(message)


def _unknown(arguments: Sequence[str]) -> list[str]:
    parser = _Parser(allow_abbrev=False, add_help=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)  # type: ignore[arg-type]  # Beam's hook for subclasses
    return parser.parse_known_args(arguments)[1]
