"""The program that decodes with PyAV, in a forked child for each video.

So PyAV is loaded once. A hostile file affects only its child, which is confined to the open file.
A request (sandbox/fork_server.py) carries the pipe for the answers and the open file. Answers are
JSON messages. The pixels of a span's frames follow its message. NumPy is not imported, which keeps
the start short.
"""

import contextlib
import fcntl
import functools
import json
import os
import resource
import struct
from typing import Any, BinaryIO

import av
import av.logging
import av.subtitles.codeccontext  # noqa: F401  (else imported when subtitles are met: too late)
import av.subtitles.stream  # noqa: F401
from av.error import FFmpegError
from av.video.frame import VideoFrame

from pipelines.decoding.pyav_spans import Span, decoded
from pipelines.decoding.pyav_video import RefusedError, Video
from pipelines.decoding.sandbox import fork_server, limits
from pipelines.decoding.sandbox.confine import Confinement
from pipelines.errors import is_fault, origin

_PIPE_BYTES = 1 << 20
_MESSAGE_CHARACTERS = 500  # maximum length of a fault's message


def main() -> None:
    """Fork a child for each request, until the other end of standard input closes."""
    av.logging.set_level(av.logging.PANIC)
    fork_server.serve(_answer)


def _answer(request: dict[str, Any], descriptors: list[int], confinement: Confinement) -> None:
    pipe, video = descriptors
    limits.lower(
        (
            (resource.RLIMIT_AS, request["memory"], request["memory"]),
            (resource.RLIMIT_FSIZE, 0, 0),
            (resource.RLIMIT_CORE, 0, 0),
            limits.processor(request["processor_seconds"]),
        )
    )
    with contextlib.suppress(OSError):  # An ordinary user's limit may be lower.
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    file: Any = open(video, "rb", buffering=0)  # noqa: SIM115  (the process ends with it)
    file.name = request["name"]  # Its extension is a hint at the container.
    with os.fdopen(pipe, "wb") as out:
        confinement.compute_only()
        try:
            options = {"protocol_whitelist": "", "format_whitelist": request["containers"]}
            opened = functools.partial(av.open, file, options=options, metadata_errors="replace")
            _serve(Video(file, opened, request), request, out)
        except RefusedError as error:
            _send(out, error.args[0])
        except MemoryError:
            _send(out, {"refused": "memory"})
        except (FFmpegError, OSError) as error:
            _send(out, {"refused": "undecodable", "message": error.strerror or str(error)})
        except Exception as error:
            if not is_fault(error):
                raise
            _send(out, {"refused": "fault", "message": _described(error)})


def _described(error: Exception) -> str:
    """Return an exception of this program and where it was raised."""
    module, line = origin(error)
    return f"{type(error).__name__} in {module}, line {line}: {error}"[:_MESSAGE_CHARACTERS]


def _serve(video: Video, request: dict[str, Any], out: BinaryIO) -> None:
    if "from_us" in request:
        _send(out, {"end_us": video.end_us(request["from_us"])})
        return
    if "lacks" in request:
        _send(out, {"lead_us": video.lead_us(), "lacks": video.lacks()})
        return
    for group in request["passes"]:
        for span in decoded(video, [Span(i, request["times_us"][i]) for i in group]):
            _write(out, video, span)


def _write(out: BinaryIO, video: Video, span: Span) -> None:
    """Write a span's frames or the reason for its failure, and release its frames."""
    whole, damage, images = span.whole, span.damage, span.take()
    answer: dict[str, Any] = {"span": span.number, "stated_us": video.stated_us}
    if not whole:
        # If the file ends before the span, its truncation is the cause, not its last packet.
        ended = 0 < video.packets_end_us <= span.times_us[0]
        _send(out, answer | {"found": len(images), "message": "" if ended else video.complaint})
        return
    if damage is not None:
        _send(out, answer | {"found": 0, "message": f"damaged frames: {damage}"})
        return
    frames = [image for image in images if isinstance(image, VideoFrame)]
    sizes = {(frame.width, frame.height) for frame in frames}
    if len(sizes) > 1:
        _send(out, answer | {"found": 0, "message": "frames of several shapes"})
        return
    ((width, height),) = sizes
    stride = frames[0].planes[0].line_size
    answer |= {"width": width, "height": height, "stride": stride, "matrix": video.pictures.matrix}
    _send(out, answer)
    for frame in frames:
        out.write(memoryview(frame.planes[0])[: height * stride])
    out.flush()


def _send(out: BinaryIO, message: dict[str, Any]) -> None:
    words = json.dumps(message).encode()
    out.write(struct.pack("<I", len(words)) + words)
    out.flush()


if __name__ == "__main__":
    main()
