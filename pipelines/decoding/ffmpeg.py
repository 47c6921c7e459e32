"""The ffmpeg executable: its path, version, environment and sandbox support."""

import contextlib
import functools
import os
import re
import shutil
import subprocess
from typing import NamedTuple

from pipelines.decoding.sandbox import programs
from pipelines.decoding.sandbox.programs import Program
from pipelines.errors import UserError
from pipelines.processes.timeouts import Timeout

VARIABLE = "SVILM_FFMPEG"

_ANSWER_SECONDS = 30
# The only variables that ffmpeg inherits: no token, and none that makes it write a report.
_ENVIRONMENT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH")
_TAKES_DESCRIPTORS = 60  # minimum major version of libavformat, that of ffmpeg 6


class FfmpegError(UserError, RuntimeError):
    """A missing ffmpeg, or one that does not run."""


class Ffmpeg(NamedTuple):
    """The ffmpeg program and its input type for untrusted videos."""

    program: Program
    takes_descriptors: bool  # whether inputs may be descriptors; older versions take only paths


@functools.cache
def executable() -> str:
    """Return the path of ffmpeg: $SVILM_FFMPEG, else the build in the imageio-ffmpeg package.

    Raises:
      FfmpegError: neither exists.
    """
    if named := os.environ.get(VARIABLE):
        return named
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise FfmpegError(
            f"ffmpeg was not found: pip install 'svilm[pipelines]', or set {VARIABLE} to its path"
        ) from None


def version() -> str:
    """Return the version that ffmpeg states, for instance "7.1".

    Raises:
      FfmpegError: ffmpeg does not run.
    """
    return _said(executable()).split(maxsplit=3)[2]


def known() -> Ffmpeg:
    """Return the ffmpeg program, its input type and whether the sandbox can confine it.

    Raises:
      FfmpegError: ffmpeg does not run.
    """
    return _known(executable())


def environment() -> dict[str, str]:
    """Return the environment variables that ffmpeg inherits."""
    given = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return given | {"AV_LOG_FORCE_NOCOLOR": "1"}


@functools.cache
def _known(named: str) -> Ffmpeg:
    # ffmpeg starts in another folder, so its path must be absolute.
    path = os.path.abspath(shutil.which(named) or named)
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read(2) == b"#!":
            return Ffmpeg(Program(path, unconfined="ffmpeg is a script"), False)
    said = _said(named)
    format_version = re.search(r"^libavformat +(\d+)\.", said, re.MULTILINE)
    takes_descriptors = bool(format_version) and int(format_version[1]) >= _TAKES_DESCRIPTORS
    program = programs.linked(path, environment())
    status = None
    with (
        contextlib.suppress(OSError),
        programs.started(program, ["-version"], [], environment=environment()) as tried,
    ):
        status = tried.status(Timeout(_ANSWER_SECONDS))
    if status != 0:
        program = Program(path, unconfined="ffmpeg fails in it")
    return Ffmpeg(program, takes_descriptors)


@functools.cache
def _said(path: str) -> str:
    """Return the output of `ffmpeg -version`.

    Raises:
      FfmpegError: ffmpeg does not run, or `path` is another program.
    """
    try:
        with subprocess.Popen(
            [path, "-version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as child:
            said = Timeout(_ANSWER_SECONDS).communicate(child)[0].decode(errors="replace")
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, path)
    except (OSError, subprocess.SubprocessError) as error:
        raise FfmpegError(
            f"ffmpeg at {path!r} does not run ({_why(error)}): set {VARIABLE} to the path of "
            "another, or unset it to use that of the package imageio-ffmpeg"
        ) from None
    words = said.split(maxsplit=3)
    if words[:2] != ["ffmpeg", "version"] or len(words) < 3:
        raise FfmpegError(f"{path!r} is not ffmpeg: set {VARIABLE} to the path of ffmpeg")
    return said


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "cannot start"
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    return f"no answer within {_ANSWER_SECONDS} s"
