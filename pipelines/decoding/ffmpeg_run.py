"""A confined run of the ffmpeg program on one video: its input, outputs, limits and log.

ffmpeg inherits the open video and the open output files. It may open only its libraries, and an
ffmpeg before version 6 also the video by its path.
"""

import contextlib
import errno
import math
import os
import resource
from collections.abc import Sequence
from typing import IO, Any

from pipelines.decoding import ffmpeg
from pipelines.decoding.sandbox import programs
from pipelines.decoding.sandbox.limits import processor
from pipelines.decoding.spans import Limits
from pipelines.processes.timeouts import Timeout

_VIDEO = programs.FIRST
_LOG_BYTES = 1 << 16  # bytes kept of the log's beginning, and as many of its end


class UnreadableError(Exception):
    """A video that cannot be opened, with its name and the reason."""


def source(path: str) -> dict[str, Any]:
    """Return the arguments of ffmpeg-python's `input` that allow the video and no other file."""
    if ffmpeg.known().takes_descriptors:
        return {"filename": "fd:", "fd": _VIDEO, "protocol_whitelist": "fd"}
    return {"filename": f"file:{path}", "protocol_whitelist": "file"}


def output(number: int) -> str:
    """Return the URL of an output file in ffmpeg's arguments, numbered from 0.

    >>> output(0)
    'pipe:4'
    """
    return f"pipe:{_VIDEO + 1 + number}"


def run(
    path: str, arguments: Sequence[str], outputs: Sequence[IO[bytes]], maximum: int, limits: Limits
) -> tuple[int | str, str]:
    """Run ffmpeg until it exits or exceeds its time limit.

    Args:
      path: the video's path.
      arguments: ffmpeg's arguments without the program's name.
      outputs: open files that receive the output.
      maximum: maximum size of each output, bytes.
      limits: limits on all other resources.

    Returns:
      The exit status or "time-out", and the beginning and end of the log.

    Raises:
      UnreadableError: the video cannot be opened.
      UnconfinedError: a layer of the sandbox is missing, and all are required.
      OSError: ffmpeg cannot be started.
    """
    try:
        return _run(path, arguments, outputs, maximum, limits)
    except OSError as error:
        if (error.errno, error.filename) != (errno.ENOMEM, ffmpeg.known().program.path):
            raise
        return 1, os.strerror(errno.ENOMEM)  # ffmpeg does not even start in so little memory.


def _run(
    path: str, arguments: Sequence[str], outputs: Sequence[IO[bytes]], maximum: int, limits: Limits
) -> tuple[int | str, str]:
    timeout = Timeout(limits.seconds)
    head, tail = b"", b""
    with contextlib.ExitStack() as opened:
        # O_NONBLOCK keeps `open` from blocking if a pipe has meanwhile replaced the file.
        try:
            video = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise UnreadableError(f"{os.path.basename(path)}: {error.strerror}") from None
        opened.callback(os.close, video)
        program, takes_descriptors = ffmpeg.known()
        child = opened.enter_context(
            programs.started(
                program,
                arguments,
                [video, *(file.fileno() for file in outputs)],
                environment=ffmpeg.environment(),
                limits=_resources(maximum, limits),
                opens=() if takes_descriptors else (_VIDEO,),
                required=limits.confined,
            )
        )
        while timeout.wait_readable(child.log):
            if not (text := os.read(child.log, 65536)):
                status = child.status(timeout)
                said = (head + tail).decode(errors="replace")
                return ("time-out", "") if status is None else (status, said)
            kept = max(0, _LOG_BYTES - len(head))
            head += text[:kept]
            tail = (tail + text[kept:])[-_LOG_BYTES:]
    return "time-out", ""


def _resources(file_bytes: int, limits: Limits) -> list[tuple[int, int, int]]:
    maximum = max(file_bytes, 1 << 20)
    return [
        processor(math.ceil(limits.seconds)),
        (resource.RLIMIT_AS, limits.memory, limits.memory),
        (resource.RLIMIT_FSIZE, maximum, maximum),
        (resource.RLIMIT_CORE, 0, 0),
    ]
