"""Standard streams that never decide the outcome of a command.

A terminal may not be UTF-8, a stream may be closed, and a pipe's reader may exit. The command still
does its work and exits with its own status. `pipelines` has a copy: the stages share only schemas.
"""

import codecs
import errno
import io
import os
import sys
from typing import TextIO

# ASCII spellings of the characters that messages use.
_ASCII = {
    "→": "->",
    "–": "-",
    "−": "-",
    "…": "...",
    "×": "x",
    "·": ".",
    "±": "+-",
    "µ": "u",
    "μ": "u",
    "≥": ">=",
    "≤": "<=",
    "█": "#",
    "²": "2",
}
_HANDLER = "svilm.ascii"


def prepare() -> None:
    """Open closed streams on /dev/null and make writing to the others safe.

    Restart Python in UTF-8 mode if the locale has another encoding. Otherwise Python encodes file
    names in that encoding, and a video whose name is not ASCII would be missing.
    """
    # Otherwise the next opened file gets descriptor 1 or 2, and a print damages that file.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        _restart_in_utf8()
    codecs.register_error(_HANDLER, spelled_in_ascii)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.stdout = _safe(sys.stdout, 1, "standard output", frozenset({errno.EPIPE, errno.EIO}))
    sys.stderr = _safe(sys.stderr, 2, "standard error", None)


def spelled_in_ascii(error: UnicodeError) -> tuple[str, int]:
    r"""Replace what an encoding lacks by an ASCII spelling or an escape, as an error handler.

    >>> codecs.register_error("example", spelled_in_ascii)
    >>> "3 × 4 → Bär".encode("ascii", "example")
    b'3 x 4 -> B\\xe4r'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    escaped = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(escaped), error.end


def _restart_in_utf8() -> None:
    os.environ["PYTHONUTF8"] = "1"
    if sys.stdout is not None:  # output keeps the terminal's encoding
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class _Tolerant(io.FileIO):
    """A stream that ignores the loss of its reader and raises any other error once, by name."""

    def __init__(self, descriptor: int, called: str, tolerated: frozenset[int] | None) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._called, self._tolerated = called, tolerated
        self._lost = False

    def write(self, data) -> int:
        size = memoryview(data).nbytes
        if self._lost:
            return size
        try:
            return super().write(data)
        except OSError as error:
            self._lost = True
            if self._tolerated is None or error.errno in self._tolerated:
                return size
            raise OSError(error.errno, error.strerror, self._called) from None


def _safe(
    stream: TextIO | None, descriptor: int, called: str, tolerated: frozenset[int] | None
) -> io.TextIOWrapper:
    """Return the stream as a text stream that tolerates errors.

    Args:
      stream: Python's stream. None if it was closed.
      descriptor: the stream's file descriptor.
      called: the stream's name in errors.
      tolerated: error numbers that are ignored. None ignores all.
    """
    raw = _Tolerant(descriptor, called, tolerated)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=(stream and stream.encoding) or "utf-8",
        errors=_HANDLER,
        line_buffering=descriptor == 2 or raw.isatty(),
    )
