"""A video file as PyAV opens it: its packets, its frames, their times and their pixels."""

import collections
import contextlib
import itertools
import math
import struct
from collections.abc import Iterator
from typing import Any

from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from pipelines.decoding.schedule import Coded, IrregularError

_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class RefusedError(Exception):
    """A video that must not be decoded: the message that says why."""


class Video:
    """An open file's first video stream."""

    def __init__(self, container: Any, request: dict[str, Any]) -> None:
        self._container, self._request = container, request
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [one for one in container.streams.video if not one.disposition & pictures]
        if not streams:
            raise RefusedError({"refused": "no stream"})
        self._stream = streams[0]
        self._codec = self._stream.codec_context
        self._codec.thread_count = 1
        self._codec.options = {"max_pixels": str(request["pixels"])}
        self._check_pixels(self._codec.width, self._codec.height)
        unit = self._stream.time_base
        self._ticks, self._us = unit.denominator, 1_000_000 * unit.numerator
        self._origin = _rounded((container.start_time or 0) * self._ticks, self._us)
        rate = self._stream.average_rate
        self._usual_us = round(1_000_000 / rate) if rate else 1
        self._planar, self._packed = VideoReformatter(), VideoReformatter()
        # AVI has no times of presentation. Those that its reader makes up are wrong where B-frames
        # are packed with the frames before them, as XviD and DivX did.
        self._is_avi = container.format.name == "avi"
        self.stated_us: int | None = container.duration
        self.complaint = ""
        self.matrix = [1, 0, 0, 1]  # from a place in the file's frames to one on screen: a b c d

    def us(self, ticks: int) -> int:
        """A time of the stream from the beginning of the file, microseconds."""
        return _rounded((ticks - self._origin) * self._us, self._ticks)

    def seek(self, time_us: int | None) -> None:
        """Goes to the last key frame that is not after a time, so far as the container knows.

        None: to the beginning.
        """
        places = [-(1 << 62), 0]  # AVI's reader refuses what is before its first time
        if time_us is not None:
            places = [_rounded(time_us * self._ticks, self._us) + self._origin]
        for ticks in places:
            with contextlib.suppress(FFmpegError):
                self._container.seek(ticks, stream=self._stream)
                break
        self.forget()

    def forget(self) -> None:
        """Makes the decoder ready for a key frame."""
        if self._codec.is_open:
            self._codec.flush_buffers()

    def skip_others(self, skip: bool) -> None:
        """Whether frames that no other frame needs are left out (B-frames, mostly)."""
        self._codec.skip_frame = "NONREF" if skip else "DEFAULT"

    def packets(self) -> Iterator[Coded]:
        """Packets from here on.

        Raises:
          IrregularError: one has no times, or none that could be relied on.
        """
        for packet in self._demuxed():
            if packet.is_discard:
                continue
            if packet.pts is None or packet.dts is None or self._is_avi:
                raise IrregularError
            start_us = self.us(packet.pts)
            yield Coded(
                packet,
                start_us,
                self._end_us(packet, start_us),
                self.us(packet.dts),
                packet.is_keyframe,
            )

    def frames(self) -> Iterator[tuple[int, int, Any]]:
        """Every frame from here on, with when it comes on and when it leaves if no other comes."""
        self.skip_others(False)
        end_us = None
        for packet in itertools.chain(self._demuxed(), [None]):
            for frame in self.decode(packet):
                ticks = frame.dts if frame.pts is None or self._is_avi else frame.pts
                if ticks is not None:
                    start_us = self.us(ticks)
                elif end_us is not None and self._is_avi:  # the last ones, when packets have ended
                    start_us = end_us
                else:
                    continue
                end_us = self._end_us(frame, start_us)
                yield start_us, end_us, frame

    def _demuxed(self) -> Iterator[Any]:
        """Packets that are not empty; a file that cannot be read on ends there."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self.complaint = error.strerror

    def _end_us(self, shown: Any, start_us: int) -> int:
        if not shown.duration:
            return start_us + self._usual_us
        return start_us + _rounded(shown.duration * self._us, self._ticks)

    def decode(self, packet: Any) -> list[Any]:
        """The frames that a packet brings out; None: all that the decoder still has."""
        try:
            return self._codec.decode(packet)
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self.complaint = error.strerror
            return []

    def scaled(self, frame: Any) -> Any:
        """The frame at its final size, RGB, not turned yet."""
        self._check_pixels(frame.width, frame.height)
        if matrix := frame.side_data.get("DISPLAYMATRIX"):
            self.matrix = _signs(bytes(matrix))
        width, height = self._size(frame.width, frame.height)
        # By way of planes: the same pixels as packed at once, in half the time.
        planar = self._planar.reformat(
            frame, width, height, format="gbrp", interpolation=_SCALING, threads=1
        )
        return self._packed.reformat(planar, format="rgb24", interpolation=_SCALING, threads=1)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        shape = width / height * float(self._stream.sample_aspect_ratio or 1)
        short_side = self._request["short_side"]
        if max(shape, 1 / shape) > self._request["widest"]:
            raise MemoryError
        long_side = math.floor(short_side * max(shape, 1 / shape) + 0.5)
        return (short_side, long_side) if shape < 1 else (long_side, short_side)

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._request["pixels"]:
            raise RefusedError({"refused": "pixels", "width": width, "height": height})

    def end_us(self, from_us: int) -> int:
        """When the last frame leaves the screen; 0 where the file is not as long as it states.

        If not even the sound is as long as stated, the file is truncated, and the video would
        have gone on.
        """
        self.seek(from_us)
        ends_us: dict[int, int] = collections.defaultdict(int)
        for packet in self._container.demux(self._stream, *self._container.streams.audio):
            ticks = packet.dts if packet.pts is None else packet.pts  # AVI may have no other
            if packet.size and ticks is not None:
                seconds = (ticks + (packet.duration or 0)) * packet.time_base
                end_us = math.floor(seconds * 1_000_000) - (self._container.start_time or 0)
                ends_us[packet.stream_index] = max(ends_us[packet.stream_index], end_us)
        # Matroska's length counts from 0, though its first frame may come later.
        length_us = (self.stated_us or 0) - (self._container.start_time or 0)
        least_us = length_us - self._request["length_slack_us"]
        return ends_us[self._stream.index] if max(ends_us.values(), default=0) >= least_us else 0


def _signs(matrix: bytes) -> list[int]:
    """A display matrix's quarter turns and flips: the nearest, if it is none of them."""
    a, b, _, c, d, *_ = struct.unpack("<9i", matrix[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        b = c = 0
    else:
        a = d = 0
    return [(value > 0) - (value < 0) for value in (a, b, c, d)]


def _rounded(numerator: int, denominator: int) -> int:
    """A quotient to the nearest whole number, halves away from zero, as ffmpeg rounds times."""
    sign = -1 if numerator < 0 else 1
    return sign * ((2 * abs(numerator) + denominator) // (2 * denominator))
