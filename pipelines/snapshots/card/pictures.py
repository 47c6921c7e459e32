"""Thumbnails of a record's frames, decoded in a confined child because records may be forged."""

import contextlib
import os
import tempfile
from collections.abc import Sequence

from PIL import Image

from pipelines.decoding.sandbox import fork_client as sandbox
from pipelines.formatting import printable
from pipelines.processes import child_python
from pipelines.processes.timeouts import Timeout
from pipelines.snapshots.card import pictures_child
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG, FRAME_ENCODING_PNG, FRAME_ENCODING_RAW, Clip

PROGRAM = child_python.command("pipelines.snapshots.card.pictures_child")

_SECONDS = 2.0 * pictures_child.PROCESSOR_SECONDS
_MESSAGE_BYTES = 200
_KINDS = {
    FRAME_ENCODING_RAW: pictures_child.RAW,
    FRAME_ENCODING_PNG: pictures_child.PNG,
    FRAME_ENCODING_JPEG: pictures_child.JPEG,
}


class PictureError(Exception):
    """The reason why a frame cannot be decoded."""


def small(clip: Clip, numbers: Sequence[int], width: int, height: int) -> list[Image.Image]:
    """Return the clip's frames of the given numbers, resized to `width` × `height` pixels.

    Raises:
      PictureError: a frame cannot be decoded.
      OSError: the process that forks the children has died.
    """
    frames = [clip.frames[number] for number in numbers]
    request = {
        "kind": _KINDS[clip.frame_encoding],
        "size": (clip.width, clip.height),
        "shown": (width, height),
        "lengths": [len(frame) for frame in frames],
    }
    size = 3 * width * height
    maximum = 1 + max(size * len(frames), _MESSAGE_BYTES)
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(tempfile.TemporaryFile(buffering=0))
        file.writelines(frames)
        file.seek(0)
        server = sandbox.acquire(PROGRAM, required=False)
        reader, writer = os.pipe()
        opened.callback(os.close, reader)
        status = None
        try:
            server.begin(request, [writer, file.fileno()])
            os.close(writer)
            timeout = Timeout(_SECONDS)
            answer = _read(reader, maximum + 1, timeout)
            if len(answer) <= maximum:  # A child with a longer answer is killed.
                status = server.status(timeout)
        finally:
            if status is None:
                server.end()
            else:
                sandbox.release(server)
    if status is None and len(answer) <= maximum:
        raise PictureError(f"decoding took more than {_SECONDS:g} s")
    if status:
        raise PictureError(f"the decoder exited with status {status}")
    if answer[:1] == b"\1":
        raise PictureError(printable(answer[1:].decode(errors="replace")[:_MESSAGE_BYTES]))
    if answer[:1] != b"\0" or len(answer) != 1 + size * len(frames):
        raise PictureError("the decoder returned no image")
    return [
        Image.frombytes("RGB", (width, height), answer[1 + i * size : 1 + (i + 1) * size])
        for i in range(len(frames))
    ]


def _read(pipe: int, maximum: int, timeout: Timeout) -> bytes:
    """Read a pipe until its end, `maximum` bytes or the end of `timeout`."""
    parts: list[bytes] = []
    while (
        maximum > 0
        and timeout.wait_readable(pipe)
        and (part := os.read(pipe, min(maximum, 1 << 20)))
    ):
        parts.append(part)
        maximum -= len(part)
    return b"".join(parts)
