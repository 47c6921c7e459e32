"""Which ffmpeg decodes."""

import functools
import os
import subprocess

from pipelines.patience import Patience

VARIABLE = "SVILM_FFMPEG"


class FfmpegError(RuntimeError):
    """There is no ffmpeg that runs."""


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


@functools.cache
def version() -> str:
    """The version that ffmpeg states, for instance "7.1".

    Raises:
      FfmpegError: it does not run.
    """
    path = executable()
    try:
        with subprocess.Popen(
            [path, "-version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            said, _ = Patience(30).answer(child)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, path)
    except (OSError, subprocess.SubprocessError) as error:
        raise FfmpegError(
            f"ffmpeg at {path!r} does not run ({_why(error)}): set {VARIABLE} to the path of one "
            "that does, or unset it to use the imageio-ffmpeg package's"
        ) from None
    words = said.decode(errors="replace").split(maxsplit=3)
    if words[:2] != ["ffmpeg", "version"]:
        raise FfmpegError(f"{path!r} is no ffmpeg: set {VARIABLE} to the path of one")
    return words[2]


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "cannot start"
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    return "no answer within 30 s"
