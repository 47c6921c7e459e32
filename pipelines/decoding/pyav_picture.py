"""Cropping and scaling of a decoded frame to its final size, by PyAV.

A frame is shown at the quarter turn that is nearest to its display matrix: upright for 45°.
"""

import math
import re
import struct
from fractions import Fraction
from typing import NamedTuple

import av.logging
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from pipelines.decoding.codecs import FEW_BITS

# Rotations by 0, 1, 2 and 3 quarter turns to the left.
_TURNS = [[1, 0, 0, 1], [0, -1, 1, 0], [-1, 0, 0, -1], [0, 1, -1, 0]]
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_FEW_BITS = re.compile(FEW_BITS)


class Crop(NamedTuple):
    """The pixels to cut off at each edge."""

    left: int
    right: int
    top: int
    bottom: int


def container_crop(container: InputContainer) -> Crop | None:
    """Return the crop that the container states by `clap` or PixelCrop, or None.

    PyAV does not expose a stream's side data, so this parses libavformat's description.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        told = container.dumps_format()  # pyright: ignore[reportAttributeAccessIssue]  # no stub
        stated = re.search(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", told)
    finally:
        av.logging.set_level(level)
    return Crop(*map(int, stated.groups())) if stated else None


class Pictures:
    """A converter of frames to their shown form, except for quarter turns."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, short_side: int, widest: float
    ) -> None:
        """Prepare for a stream's frames.

        Args:
          container: the frames' container.
          stream: the frames' stream.
          short_side: shorter side of the result, pixels.
          widest: maximum ratio of the longer to the shorter side.
        """
        self._short_side, self._widest = short_side, widest
        self._pixel_shape = float(stream.sample_aspect_ratio or 1)
        self._crop = container_crop(container)
        self._cropping: tuple[tuple[int, int, str], Graph] | None = None
        self._native, self._unpacked = VideoReformatter(), VideoReformatter()
        self._planar, self._packed = VideoReformatter(), VideoReformatter()
        self.matrix = [1, 0, 0, 1]  # from file coordinates to screen coordinates: a b c d

    def scaled(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame at its final size, RGB, not rotated yet.

        Raises:
          MemoryError: the ratio of its sides exceeds the maximum.
        """
        try:
            if matrix := frame.side_data.get("DISPLAYMATRIX"):
                self.matrix = _signs(bytes(matrix))
        except ValueError:  # PyAV does not know all kinds of side data, for instance Exif.
            self.matrix = _TURNS[round(frame.rotation / 90) % 4]
        if self._crop:
            frame = self._cropped(frame, self._crop)
        width, height = self._size(frame.width, frame.height)
        if _FEW_BITS.fullmatch(frame.format.name):
            # Some releases of FFmpeg convert big-endian formats as if they were little-endian.
            native = frame.format.name.replace("be", "le")
            frame = self._native.reformat(frame, format=native, interpolation=_SCALING, threads=1)
            frame = self._unpacked.reformat(
                frame, format="rgb24", interpolation=_SCALING, threads=1
            )
        # Scaling to planes first yields the same pixels as packing at once, in half the time.
        planar = self._planar.reformat(
            frame, width, height, format="gbrp", interpolation=_SCALING, threads=1
        )
        return self._packed.reformat(planar, format="rgb24", interpolation=_SCALING, threads=1)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        shape = width / height * self._pixel_shape
        if max(shape, 1 / shape) > self._widest:
            raise MemoryError
        long_side = math.floor(self._short_side * max(shape, 1 / shape) + 0.5)
        return (self._short_side, long_side) if shape < 1 else (long_side, self._short_side)

    def _cropped(self, frame: VideoFrame, crop: Crop) -> VideoFrame:
        width, height = frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom
        if width < 1 or height < 1:
            return frame  # ffmpeg ignores such a crop too.
        form = (frame.width, frame.height, frame.format.name)
        if self._cropping is None or self._cropping[0] != form:
            graph = Graph()
            source = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=Fraction(1, 1),
            )
            cut = graph.add("crop", f"{width}:{height}:{crop.left}:{crop.top}")
            graph.link_nodes(source, cut, graph.add("buffersink")).configure()
            self._cropping = form, graph
        graph = self._cropping[1]
        graph.push(frame)
        cropped = graph.pull()
        assert isinstance(cropped, VideoFrame)
        return cropped


def _signs(matrix: bytes) -> list[int]:
    """Return the quarter turns and flips that are nearest to a display matrix."""
    a, b, _, c, d, *_ = struct.unpack("<9i", matrix[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        b = c = 0
    else:
        a = d = 0
    return [(value > 0) - (value < 0) for value in (a, b, c, d)]
