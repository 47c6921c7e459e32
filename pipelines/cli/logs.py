"""Logging of a command: -v shows log messages on stderr, --log-file keeps them.

Only commands configure logging. Modules log to `svilm.pipelines` and never change other loggers.
`trainer` has a copy of this module: the stages share only schemas.
"""

import argparse
import contextlib
import logging
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence

from pipelines.errors import ExitCode, UserError
from pipelines.messages import LOGGER

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(process)d %(name)s: %(message)s"
_HIDDEN = "***"
# Values that give access: user:password@ in addresses, and parameters or options of such names.
_SECRET = re.compile(
    r"(?P<before>://[^\s/@:]*:|\bBearer\s+"
    r"|(?:token|password|passwd|secret|signature|credential|api[_-]?key)['\"]*\s*[=:]\s*['\"]*"
    r"|--[\w-]*(?:token|password|secret|api[_-]key)[\w-]*\s+)"
    r"(?P<value>[^\s'\"&,;)}\]@]+)(?P<after>@?)",
    re.IGNORECASE,
)


class LogFileError(UserError):
    """A log file that cannot be written."""

    exit_code = ExitCode.MISUSED


def add(parser: argparse.ArgumentParser) -> None:
    """Add -v and --log-file to a command."""
    group = parser.add_argument_group("logging")
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="show log messages on stderr; -vv: those for debugging and the libraries', too",
    )
    group.add_argument(
        "--log-file",
        metavar="FILE",
        help="append log messages, with time (UTC), level and process, to a file on a disk",
    )


@contextlib.contextmanager
def configured(arguments: argparse.Namespace, words: Sequence[str] | None = None) -> Iterator[None]:
    """Configure logging for one command, and restore the previous configuration at its end.

    Args:
      arguments: the parsed arguments of `add`.
      words: the command line, for the log; None: that of this process.

    Raises:
      LogFileError: the log file cannot be written.
    """
    console = logging.StreamHandler(sys.stderr)
    console.addFilter(_OnConsole(arguments.verbose))
    clear = "\r\x1b[2K" if sys.stderr.isatty() else ""  # a progress bar
    console.setFormatter(_Formatter(f"{clear}%(levelname)s %(name)s: %(message)s"))
    handlers: list[logging.Handler] = [console]
    if arguments.log_file:
        try:
            file = logging.FileHandler(arguments.log_file, encoding="utf-8", errors="replace")
        except OSError as error:
            raise LogFileError(
                f"--log-file {arguments.log_file}: {error.strerror}: name a file that can be "
                "written"
            ) from None
        file.setFormatter(formatter())
        handlers.append(file)
    root, own = logging.getLogger(), logging.getLogger("svilm")
    levels = root.level, own.level
    debug = arguments.verbose > 1
    root.setLevel(logging.INFO if debug else logging.WARNING)
    own.setLevel(_own_level(arguments))
    for handler in handlers:
        root.addHandler(handler)
    try:
        LOGGER.info("command: %s", shlex.join(sys.argv[1:] if words is None else words))
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(levels[0])
        own.setLevel(levels[1])


def formatter() -> logging.Formatter:
    """Return a formatter for files: time in UTC, level, process and logger, without secrets."""
    return _Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")


def _own_level(arguments: argparse.Namespace) -> int:
    if arguments.verbose > 1:
        return logging.DEBUG
    if arguments.verbose or arguments.log_file:
        return logging.INFO
    return logging.CRITICAL + 1  # Modules print what is of interest without these options.


class _OnConsole(logging.Filter):
    """Filter of the messages that stderr does not show yet."""

    def __init__(self, verbose: int) -> None:
        super().__init__()
        self._verbose = verbose

    def filter(self, record: logging.LogRecord) -> bool:
        # Without -v the libraries are quiet too: the command reports their errors itself.
        return self._verbose > 0 and not getattr(record, "printed", False)


class _Formatter(logging.Formatter):
    """Formatter that hides secrets, with times in UTC."""

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def without_secrets(text: str) -> str:
    """Hide passwords and tokens in a text.

    >>> without_secrets("https://me:pass@host/a?token=abc&x=1 --api-key abc")
    'https://me:***@host/a?token=***&x=1 --api-key ***'
    """
    return _SECRET.sub(lambda found: f"{found['before']}{_HIDDEN}{found['after']}", text)
