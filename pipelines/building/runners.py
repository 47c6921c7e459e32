"""Runners of the Beam graph: this process, worker processes, or an engine named by --runner."""

import argparse
import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, TestOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner

from pipelines.building import dataflow, job_service, worker_processes
from pipelines.building.worker_processes import WorkerProcess
from pipelines.errors import ExitCode, UserError

_REFUSED = {
    "DaskRunner": "it silently ignores all outputs of a graph but the last",
}
# Beam's direct runner first tries to download and start a Go program. Its fallback is FnApiRunner,
# which needs no download.
_IN_PROCESS = (None, "DirectRunner", "FnApiRunner", "BundleBasedDirectRunner")


# Exceptions that no input may cause.
_FAULTS = {
    *("AssertionError", "AttributeError", "IndexError", "KeyError", "LookupError", "NameError"),
    *("NotImplementedError", "RecursionError", "TypeError", "UnboundLocalError"),
    "ZeroDivisionError",
}


class EngineError(UserError, ValueError):
    """An unknown option, or an engine that is unknown, refused or unavailable."""

    exit_code = ExitCode.MISUSED


def choose(
    workers: int, arguments: Sequence[str], worker_log: str = os.devnull
) -> tuple[PipelineRunner | str, PipelineOptions]:
    """Return the runner and its options.

    Args:
      workers: number of processes on this machine; must be 1 with another engine.
      arguments: Beam's own options.
      worker_log: the file to which worker processes on this machine append their stderr.

    Raises:
      EngineError: Beam does not know an argument, or the runner is unknown, is refused, or
        has no job service.
    """
    if unknown := _unknown(arguments):
        raise EngineError(
            f"unrecognised arguments {' '.join(unknown)}: use those of "
            "`svilm-pipelines build --help` and of Beam"
        )
    options = PipelineOptions([*arguments])
    runner = _named(options.view_as(StandardOptions).runner)
    if runner in _REFUSED:
        raise EngineError(
            f"--runner {runner} is not supported, because {_REFUSED[runner]}: choose another"
        )
    if runner not in _IN_PROCESS:
        if workers > 1:
            raise EngineError(
                f"--workers {workers} does not apply to --runner {runner}: use the runner's option"
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
    processes = WorkerProcess.from_command_string(worker_processes.command(worker_log))
    options = PipelineOptions([*arguments, f"--direct_num_workers={workers}"])
    return FnApiRunner(default_environment=processes), options


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Keep temporary files in a folder that is removed at the end.

    Otherwise Beam leaves one of its own behind.
    """
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
    """Exit without joining threads, because Beam's threads wait for one another."""
    for folder in _temporary:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(status)


def waits(options: PipelineOptions) -> bool:
    """Return whether a run waits for its job to end, instead of only submitting it."""
    dry = options.view_as(TestOptions).dry_run
    return not (dry or options.view_as(StandardOptions).no_wait_until_finish)


def _named(runner: str | None) -> str | None:
    """Return the runner's canonical name: Beam also accepts "flink" for FlinkRunner.

    Raises:
      EngineError: the runner is unknown.
    """
    if runner is None:
        return None
    known = sorted(StandardOptions.KNOWN_RUNNER_NAMES)
    last = runner.rpartition(".")[2].lower()
    for name in (*known, *_REFUSED):
        if last in (name.lower(), name.lower().removesuffix("runner")):
            return name
    if "." in runner:  # the class path of an external runner
        return runner
    raise EngineError(f"--runner {runner} is unknown: choose one of {', '.join(known)}")


@contextlib.contextmanager
def end_with_workers(report: Callable[[str], None]) -> Iterator[None]:
    """Exit with status 1 if a worker process of FnApiRunner ends before its work does.

    Beam would wait for the worker forever.

    Args:
      report: called with the message before the exit.
    """

    def exit_now(message: str) -> None:
        if message.endswith(f" {-signal.SIGINT}"):
            # Ctrl-C reached a worker before it ignored the signal: handle it in this process.
            os.kill(os.getpid(), signal.SIGINT)
        else:
            report(message)
            _leave(1)  # This is safe at any time: files are renamed only once they are complete.

    worker_processes.log_failed_threads()
    with worker_processes.deaths(exit_now):
        yield


@contextlib.contextmanager
def interruptible(workers: int, report: Callable[[], None]) -> Iterator[None]:
    """Handle Ctrl-C during a run: exit with status 130 or raise KeyboardInterrupt.

    Beam itself would raise another error or wait for its worker processes.

    Args:
      workers: number of worker processes. With more than one, this process exits at once.
      report: called before such an exit.
    """
    pressed = False

    def handle(*_) -> None:
        nonlocal pressed
        pressed = True
        if workers > 1:
            report()
            _leave(130)  # The workers exit when the connection to this process closes.
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
    """Return the original error of an exception that Beam wrapped, without tracebacks."""
    if isinstance(error, grpc.RpcError):
        return f"the engine's job service is gone ({job_service.reason(error)})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    line = re.sub(r" \[while running .*\]$", "", line)
    return re.sub(r"^(?:[a-z_]\w*\.)+([A-Z]\w*: )", r"\1", line).rstrip(".")


def is_fault(cause: str) -> bool:
    """Return whether a `cause` can only be a fault in svilm, never bad input or a full disk.

    >>> is_fault("KeyError: 'x'"), is_fault("NounModelError: no English pipeline")
    (True, False)
    """
    return cause.partition(":")[0] in _FAULTS


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise EngineError(message)


def _unknown(arguments: Sequence[str]) -> list[str]:
    parser = _Parser(allow_abbrev=False, add_help=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)  # type: ignore[arg-type]  # Beam's hook for subclasses
    return parser.parse_known_args(arguments)[1]
