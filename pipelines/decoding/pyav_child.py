"""The program that decodes with PyAV: it forks a child for each video, and the child opens it.

So PyAV is loaded once, and what a hostile file does to a child ends with that child. A request
comes on standard input, a socket, and with it the pipe for the answers: messages in JSON, each of
a span's frames with their pixels behind it. NumPy is not imported, so this starts soon.
"""

import contextlib
import fcntl
import json
import os
import resource
import socket
import struct
from typing import Any, BinaryIO

import av
import av.logging
from av.error import FFmpegError

from pipelines.decoding.pyav_spans import Span, decoded
from pipelines.decoding.pyav_video import RefusedError, Video

_PIPE_BYTES = 1 << 20


def main() -> None:
    """Forks a child for each request, until the other end of standard input closes."""
    av.logging.set_level(av.logging.PANIC)
    parent = socket.socket(fileno=0)
    while received := _receive(parent):
        request, pipe = received
        child = os.fork()
        if not child:
            status = 1
            try:
                parent.close()
                _answer(request, pipe)
                status = 0
            finally:
                os._exit(status)
        os.close(pipe)
        parent.sendall(struct.pack("<i", os.waitpid(child, 0)[1]))


def _receive(parent: socket.socket) -> tuple[dict[str, Any], int] | None:
    """A request and its pipe, or None at the end."""
    head, pipes, _, _ = socket.recv_fds(parent, 4, 1)
    words = bytearray()
    while len(head) == 4 and len(words) < struct.unpack("<I", head)[0]:
        part = parent.recv(struct.unpack("<I", head)[0] - len(words))
        if not part:
            return None
        words += part
    return (json.loads(words), pipes[0]) if words and pipes else None


def _answer(request: dict[str, Any], pipe: int) -> None:
    seconds = request["processor_seconds"]
    for kind, soft, hard in (
        (resource.RLIMIT_AS, request["memory"], request["memory"]),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        # A second more until SIGKILL: of equal limits it would come in SIGXCPU's place.
        (resource.RLIMIT_CPU, seconds, seconds + 1),
    ):
        most = resource.getrlimit(kind)[1]  # an ordinary user may not raise it
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))
    with contextlib.suppress(OSError):  # more than an ordinary user may have
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    with os.fdopen(pipe, "wb") as out:
        try:
            options = {"protocol_whitelist": "file", "format_whitelist": request["containers"]}
            path = f"file:{request['path']}"
            with av.open(path, options=options, metadata_errors="replace") as container:
                _serve(Video(container, request), request, out)
        except RefusedError as error:
            _tell(out, error.args[0])
        except MemoryError:
            _tell(out, {"refused": "memory"})
        except FFmpegError as error:
            _tell(out, {"refused": "undecodable", "told": error.strerror})


def _serve(video: Video, request: dict[str, Any], out: BinaryIO) -> None:
    if "from_us" in request:
        _tell(out, {"end_us": video.end_us(request["from_us"])})
        return
    for group in request["passes"]:
        for span in decoded(video, [Span(i, request["times_us"][i]) for i in group]):
            _write(out, video, span)


def _write(out: BinaryIO, video: Video, span: Span) -> None:
    """Tells what became of a span, and lets go of its frames."""
    whole, images = span.whole, span.take()
    sizes = {(image.width, image.height) for image in images}
    answer: dict[str, Any] = {"span": span.number}
    if not whole or len(sizes) > 1:
        answer["found"] = len(images) if len(sizes) < 2 else 0
        answer["told"] = video.complaint if len(sizes) < 2 else "frames of several shapes"
        answer["stated_us"] = video.stated_us
        _tell(out, answer)
        return
    ((width, height),) = sizes
    stride = images[0].planes[0].line_size
    answer |= {"width": width, "height": height, "stride": stride, "matrix": video.matrix}
    _tell(out, answer)
    for image in images:
        out.write(memoryview(image.planes[0])[: height * stride])
    out.flush()


def _tell(out: BinaryIO, message: dict[str, Any]) -> None:
    words = json.dumps(message).encode()
    out.write(struct.pack("<I", len(words)) + words)
    out.flush()


if __name__ == "__main__":
    main()
