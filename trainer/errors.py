"""Errors that a user can cause, and the exit codes of commands."""

import enum
import os
import sys
import tempfile
import traceback


class ExitCode(enum.IntEnum):
    """Exit codes of the commands, for scripts."""

    OK = 0
    FAILED = 1
    MISUSED = 2  # the command line
    EXPOSED = 3  # `exposure`: the run saw a clip of the videos
    INTERNAL_ERROR = os.EX_SOFTWARE  # a fault in svilm
    RUN_AGAIN = os.EX_TEMPFAIL  # preempted, or another command holds the folder
    INTERRUPTED = 130  # by Ctrl-C


class UserError(Exception):
    """An error that a user can cause: a command prints its message in one line.

    Every other exception but OSError is a fault in svilm, and is reported as an internal error.
    """

    exit_code = ExitCode.FAILED


# Exceptions of a mistake in a program. Libraries raise them for damaged data, too.
_MISTAKES = (AssertionError, AttributeError, LookupError, NameError, TypeError)
_OWN = ("trainer", "protos")


def is_fault(error: BaseException) -> bool:
    """Return whether an exception shows a fault in svilm: its own code raised it by mistake.

    >>> is_fault(TypeError())  # never raised
    False
    """
    return isinstance(error, _MISTAKES) and origin(error)[0].partition(".")[0] in _OWN


def origin(error: BaseException) -> tuple[str, int]:
    """Return the module and the line that raised an exception; ("", 0) if it was never raised."""
    trace, found = error.__traceback__, ("", 0)
    while trace is not None:
        names = trace.tb_frame.f_globals
        spec = names.get("__spec__")  # It has the name of a module that runs as a program.
        found = (spec.name if spec else names.get("__name__", ""), trace.tb_lineno)
        trace = trace.tb_next
    return found


def report_internal_error(program: str, error: BaseException) -> ExitCode:
    """Write an exception's traceback to a file, and print where it is."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix=f"{program}-", suffix=".log", delete=False
    ) as file:
        traceback.print_exception(error, file=file)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    print(
        f"{program}: internal error: {what:.300}: a fault in svilm, not in your data: report it "
        f"with the traceback in {file.name}",
        file=sys.stderr,
        flush=True,
    )
    return ExitCode.INTERNAL_ERROR
