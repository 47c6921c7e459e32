"""Frames to JPEG and back to their size."""

import importlib.metadata

import numpy as np
import simplejpeg


def encode(frames: np.ndarray, quality: int) -> list[bytes]:
    """Encodes RGB frames, uint8 [T, height, width, 3], as baseline JPEG, 4:2:0.

    >>> size(encode(np.zeros((2, 48, 64, 3), np.uint8), 95)[0])
    (48, 64)
    """
    return [
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame),
            quality=quality,
            colorspace="RGB",
            colorsubsampling="420",
            fastdct=False,  # the fast transform loses most at high qualities
        )
        for frame in frames
    ]


def size(jpeg: bytes) -> tuple[int, int]:
    """Height and width that a JPEG's header states.

    Raises:
      ValueError: it is no JPEG.
    """
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    return int(height), int(width)


def version() -> str:
    """The encoder, for the manifest."""
    return f"simplejpeg {importlib.metadata.version('simplejpeg')}"
