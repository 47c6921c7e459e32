"""The program that decodes frames of records for display, in one confined child per clip.

A request comes with two descriptors: the answer's pipe, and a file of the concatenated frames. The
answer is a byte 0 followed by RGB pixels, or a byte 1 followed by an error message.
"""

import io
import os
import resource
from typing import Any

from PIL import Image

from pipelines.decoding.sandbox import fork_server, limits
from pipelines.decoding.sandbox.confine import Confinement

PROCESSOR_SECONDS = 60
_MEMORY = 2 << 30  # bytes of address space
RAW, PNG, JPEG = "raw", "PNG", "JPEG"


def image(kind: str, size: tuple[int, int], data: bytes) -> Image.Image:
    """Decode a frame to RGB.

    Args:
      kind: RAW, PNG or JPEG.
      size: required width and height in pixels.
      data: the frame's bytes.

    Raises:
      Exception: the frame cannot be decoded. Pillow determines the type.

    >>> image(RAW, (1, 2), bytes(6)).size
    (1, 2)
    """
    if kind == RAW:
        return Image.frombytes("RGB", size, data)
    with Image.open(io.BytesIO(data), formats=[kind]) as encoded:
        if encoded.size != size:
            raise ValueError(
                f"the frame is {encoded.width}x{encoded.height} instead of {size[0]}x{size[1]}"
            )
        return encoded.convert("RGB")


def main() -> None:
    """Fork a child for each request, until the other end of standard input closes."""
    Image.preinit()  # Loads the decoders, because a confined child cannot.
    fork_server.serve(_answer)


def _answer(request: dict[str, Any], descriptors: list[int], confinement: Confinement) -> None:
    pipe, frames = descriptors
    limits.lower(
        (
            (resource.RLIMIT_AS, _MEMORY, _MEMORY),
            (resource.RLIMIT_FSIZE, 0, 0),
            (resource.RLIMIT_CORE, 0, 0),
            limits.processor(PROCESSOR_SECONDS),
        )
    )
    with os.fdopen(pipe, "wb") as out, os.fdopen(frames, "rb", buffering=0) as file:
        confinement.compute_only()
        try:
            pixels = b"".join(
                image(request["kind"], tuple(request["size"]), file.read(length))
                .resize(tuple(request["shown"]), Image.Resampling.LANCZOS)
                .tobytes()
                for length in request["lengths"]
            )
        except Exception as error:  # Pillow has no exception type of its own for damaged images.
            out.write(b"\1" + (str(error) or type(error).__name__).encode())
        else:
            out.write(b"\0" + pixels)


if __name__ == "__main__":
    main()
