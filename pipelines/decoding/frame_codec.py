"""The encoder of a record's frames, from RGB pixels to JPEG, PNG or raw bytes, and their check.

JPEG is by far the smallest. PNG and raw keep every decoded pixel unchanged.
"""

import importlib.metadata
import io
import struct

import numpy as np
import simplejpeg
from PIL import Image, features

from protos import contract
from protos.v1.clip_pb2 import (
    FRAME_ENCODING_JPEG,
    FRAME_ENCODING_PNG,
    FRAME_ENCODING_RAW,
    Clip,
    FrameEncoding,
)

# Level 3 takes 14 ms per frame of 256 pixels, 16:9. Level 6 takes 35 ms and saves about 5 %.
_PNG_LEVEL = 3
# The signature, then the first chunk: its length and name, width, height, bits per channel, RGB.
_PNG_HEADER = struct.Struct(">8sI4sIIBB")

# JPEG markers: start of the pixels, start of a frame header (with the size), without a length.
_JPEG_PIXELS = 0xDA
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = {0x00, 0x01, *range(0xD0, 0xDA)}


def square(pixels: np.ndarray) -> np.ndarray:
    """Return the central square crops of frames [T, height, width, 3], of their shorter side.

    >>> square(np.zeros((2, 48, 64, 3), np.uint8)).shape
    (2, 48, 48, 3)
    """
    _, height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[:, top : top + side, left : left + side]


def encode(pixels: np.ndarray, encoding: FrameEncoding, jpeg_quality: int) -> list[bytes]:
    """Encode frames.

    Args:
      pixels: uint8 [T, height, width, 3], RGB.
      encoding: one of contract.FRAME_ENCODINGS.
      jpeg_quality: JPEG quality, 1 to 100; other encodings ignore it.

    >>> [len(frame) for frame in encode(np.zeros((2, 4, 6, 3), np.uint8), FRAME_ENCODING_RAW, 0)]
    [72, 72]
    """
    if encoding == FRAME_ENCODING_RAW:
        return [frame.tobytes() for frame in pixels]
    contiguous = map(np.ascontiguousarray, pixels)
    if encoding == FRAME_ENCODING_PNG:
        return [_png(frame) for frame in contiguous]
    return [
        simplejpeg.encode_jpeg(
            frame,
            quality=jpeg_quality,
            colorspace="RGB",
            colorsubsampling="420",
            fastdct=False,
        )
        for frame in contiguous
    ]


def check(clip: Clip) -> None:
    """Check that each frame has the record's encoding and size, by its header or length alone.

    Raises:
      ValueError: a frame differs; the message has its index and what was found.
    """
    for i, frame in enumerate(clip.frames):
        if clip.frame_encoding == FRAME_ENCODING_RAW:
            if len(frame) != clip.height * clip.width * 3:
                raise ValueError(f"frame {i} has {len(frame)} bytes, not height × width × 3")
            continue
        size = _png_size(frame) if clip.frame_encoding == FRAME_ENCODING_PNG else _jpeg_size(frame)
        if size != (clip.height, clip.width):
            raise ValueError(f"frame {i} is {size}, not as recorded")


def versions(encoding: FrameEncoding) -> dict[str, str]:
    """Return the encoder and its version, which determine an encoding's bytes; {} for raw frames.

    >>> versions(FRAME_ENCODING_RAW)
    {}
    """
    if encoding == FRAME_ENCODING_JPEG:
        return {"jpeg": f"simplejpeg {importlib.metadata.version('simplejpeg')}"}
    if encoding == FRAME_ENCODING_PNG:
        library = "zlib_ng" if features.check_feature("zlib_ng") else "zlib"
        packing = features.version(library)
        return {"png": f"Pillow {importlib.metadata.version('Pillow')}, {library} {packing}"}
    return {}


def name(encoding: FrameEncoding) -> str:
    """Return an encoding's name in the option --encoding.

    >>> name(FRAME_ENCODING_PNG)
    'png'
    """
    return {value: name for name, value in contract.FRAME_ENCODINGS.items()}[encoding]


def _png(frame: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "png", compress_level=_PNG_LEVEL)
    return data.getvalue()


def _png_size(png: bytes) -> tuple[int, int]:
    """Return height and width of an RGB PNG with 8 bits per channel.

    Raises:
      ValueError: the bytes are no such PNG.
    """
    if len(png) >= _PNG_HEADER.size:
        signature, length, chunk, width, height, *kind = _PNG_HEADER.unpack_from(png)
        if (signature, length, chunk, kind) == (b"\x89PNG\r\n\x1a\n", 13, b"IHDR", [8, 2]):
            return height, width
    raise ValueError("no PNG of 8 bits a channel, RGB")


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Return height and width of a JPEG, following its markers up to the pixels.

    Raises:
      ValueError: the bytes are no JPEG.
    """
    size, at = None, 2
    if jpeg[:2] == b"\xff\xd8":
        while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
            marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
            if marker == 0xFF:  # padding
                at += 1
                continue
            if marker == _JPEG_PIXELS and size and at + 2 + length <= len(jpeg):
                return size
            if marker in _JPEG_SIZES and len(jpeg) >= at + 9:
                height, width = struct.unpack_from(">HH", jpeg, at + 5)
                size = height, width
            if marker in _JPEG_BARE or length < 2:
                break
            at += 2 + length
    raise ValueError("no JPEG")
