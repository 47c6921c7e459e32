"""Which ffmpeg decodes, and how it is started."""

import contextlib
import functools
import os
import re
import shutil
import subprocess
from typing import NamedTuple

from pipelines.decoding.sandbox import programs
from pipelines.decoding.sandbox.programs import Program
from pipelines.processes.timeouts import Patience

VARIABLE = "SVILM_FFMPEG"

_ANSWER_SECONDS = 30
# All that it may know of the environment: no token, and nothing that makes it write a report.
_ENVIRONMENT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH")
_TAKES_DESCRIPTORS = 60  # the version of libavformat, which is that of ffmpeg 6


class FfmpegError(RuntimeError):
    """There is no ffmpeg that runs."""


class Ffmpeg(NamedTuple):
    """How it is started on untrusted bytes."""

    program: Program
    takes_descriptors: bool  # as inputs, where older ones know paths only


@functools.cache
def executable() -> str:
    """The path of ffmpeg: $SVILM_FFMPEG, else the build in the imageio-ffmpeg package.

    Raises:
      FfmpegError: there is none.
    """
    if named := os.environ.get(VARIABLE):
        return named
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise FfmpegError(
            f"no ffmpeg: install one with `pip install imageio-ffmpeg`, "
            f"or set {VARIABLE} to the path of yours"
        ) from None


def version() -> str:
    """The version that ffmpeg states, for instance "7.1".

    Raises:
      FfmpegError: it does not run.
    """
    return _said(executable()).split(maxsplit=3)[2]


def known() -> Ffmpeg:
    """How ffmpeg is started, and whether the sandbox can hold it.

    Raises:
      FfmpegError: it does not run.
    """
    return _known(executable())


def environment() -> dict[str, str]:
    """All that ffmpeg may know of the environment."""
    given = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return given | {"AV_LOG_FORCE_NOCOLOR": "1"}


@functools.cache
def _known(named: str) -> Ffmpeg:
    path = os.path.abspath(shutil.which(named) or named)  # as it is started in another folder
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
        status = tried.status(Patience(_ANSWER_SECONDS))
    if status != 0:
        program = Program(path, unconfined="ffmpeg does not run in it")
    return Ffmpeg(program, takes_descriptors)


@functools.cache
def _said(path: str) -> str:
    """What it says of its version.

    Raises:
      FfmpegError: it does not run.
    """
    try:
        with subprocess.Popen(
            [path, "-version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as child:
            said = Patience(_ANSWER_SECONDS).answer(child)[0].decode(errors="replace")
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, path)
    except (OSError, subprocess.SubprocessError) as error:
        raise FfmpegError(
            f"ffmpeg at {path!r} does not run ({_why(error)}): set {VARIABLE} to the path of one "
            "that does, or unset it to use the imageio-ffmpeg package's"
        ) from None
    words = said.split(maxsplit=3)
    if words[:2] != ["ffmpeg", "version"] or len(words) < 3:
        raise FfmpegError(f"{path!r} is no ffmpeg: set {VARIABLE} to the path of one")
    return said


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "cannot start"
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    return f"no answer within {_ANSWER_SECONDS} s"
