"""Frame encodings: lossless ones, and errors for invalid frames."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipelines.decoding import frame_codec
from pipelines.snapshots.card import pictures
from protos import contract
from protos.v1.clip_pb2 import (
    FRAME_ENCODING_JPEG,
    FRAME_ENCODING_PNG,
    FRAME_ENCODING_RAW,
    Clip,
)

ENCODINGS = contract.FRAME_ENCODINGS.values()
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 20, 31, 3), np.uint8)


def record(encoding, pixels=PIXELS, **changes):
    _, height, width, _ = pixels.shape
    fields = {
        "frames": frame_codec.encode(pixels, encoding, 90),
        "frame_encoding": encoding,
        "height": height,
        "width": width,
    }
    return Clip(**(fields | changes))


def drawn(clip):
    frames = pictures.small(clip, range(len(clip.frames)), clip.width, clip.height)
    return np.stack([np.asarray(frame) for frame in frames])


@pytest.mark.parametrize("encoding", [FRAME_ENCODING_PNG, FRAME_ENCODING_RAW])
def test_png_and_raw_are_lossless(encoding):
    clip = record(encoding)
    frame_codec.check(clip)
    np.testing.assert_array_equal(drawn(clip), PIXELS)
    # The rows of a slice are not contiguous.
    part = record(encoding, PIXELS[:, 3:, 5:26])
    np.testing.assert_array_equal(drawn(part), PIXELS[:, 3:, 5:26])


def test_jpeg_is_close():
    smooth = np.broadcast_to(np.arange(40, 60, dtype=np.uint8)[:, None, None], (2, 20, 31, 3))
    clip = record(FRAME_ENCODING_JPEG, smooth)
    frame_codec.check(clip)
    assert np.abs(drawn(clip).astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("height", [20, 31, 44])
def test_squares_are_the_centre(height):
    pixels = np.random.default_rng(height).integers(0, 256, (2, height, 31, 3), np.uint8)
    cut = frame_codec.square(pixels)
    side = min(height, 31)
    top, left = (height - side) // 2, (31 - side) // 2
    np.testing.assert_array_equal(cut, pixels[:, top:, left:][:, :side, :side])
    assert cut.shape == (2, side, side, 3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_frames_of_another_size_or_encoding_are_errors(encoding):
    for damaged in (
        record(encoding, width=30),
        record(encoding, frames=[*record(encoding).frames, b""]),
        record(encoding, frames=[b"\x89PNG\r\n\x1a\n"]),
        *(record(other, frame_encoding=encoding) for other in ENCODINGS if other != encoding),
    ):
        with pytest.raises(ValueError):
            frame_codec.check(damaged)


def test_jpeg_sizes_equal_the_librarys():
    """Headers of progressive, grey, commented and truncated JPEGs."""
    picture = Image.fromarray(PIXELS[0])
    for options in ({}, {"progressive": True}, {"comment": "x" * 70}, {"restart_marker_rows": 1}):
        for mode in ("RGB", "L", "CMYK"):
            data = io.BytesIO()
            picture.convert(mode).save(data, "jpeg", **options)
            whole = data.getvalue()
            for end in (*range(0, len(whole), 3), len(whole)):
                assert size_of(frame_codec._jpeg_size, whole[:end]) == size_of(
                    lambda jpeg: simplejpeg.decode_jpeg_header(jpeg)[:2], whole[:end]
                ), (options, mode, end)


def size_of(read, jpeg):
    try:
        return read(jpeg)
    except ValueError:
        return None


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_png_with_another_pixel_format_is_an_error(mode):
    data = io.BytesIO()
    Image.new(mode, (31, 20)).save(data, "png")
    with pytest.raises(ValueError, match="no PNG of 8 bits a channel, RGB"):
        frame_codec.check(record(FRAME_ENCODING_PNG, frames=[data.getvalue()]))


def test_encoders_have_versions():
    told = [frame_codec.versions(encoding) for encoding in ENCODINGS]
    assert [list(versions) for versions in told] == [["jpeg"], ["png"], []]
    assert told[1]["png"].startswith("Pillow ") and ", zlib" in told[1]["png"]
