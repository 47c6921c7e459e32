"""The program that decodes with PyAV: it forks a child for each video, and the child opens it.

So PyAV is loaded once, and what a hostile file does to a child ends with that child. A request
comes on standard input, a socket, and with it the pipe for the answers: messages in JSON, each of
a span's frames with their pixels behind it. NumPy is not imported, so this starts soon.
"""

import bisect
import collections
import contextlib
import fcntl
import itertools
import json
import math
import os
import resource
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import av
import av.logging
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from pipelines.decoding.schedule import Coded, IrregularError, schedule

_PIPE_BYTES = 1 << 20
_FAR_US = 20_000_000  # reading on through a longer gap costs more than a seek
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


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
                _serve(_Video(container, request), request, out)
        except _RefusedError as error:
            _tell(out, error.args[0])
        except MemoryError:
            _tell(out, {"refused": "memory"})
        except FFmpegError as error:
            _tell(out, {"refused": "undecodable", "told": error.strerror})


def _serve(video: "_Video", request: dict[str, Any], out: BinaryIO) -> None:
    if "from_us" in request:
        _tell(out, {"end_us": video.end_us(request["from_us"])})
        return
    for group in request["passes"]:
        for span in _decoded(video, [_Span(i, request["times_us"][i]) for i in group]):
            span.write(out, video)


def _tell(out: BinaryIO, message: dict[str, Any]) -> None:
    words = json.dumps(message).encode()
    out.write(struct.pack("<I", len(words)) + words)
    out.flush()


def _decoded(video: "_Video", spans: list["_Span"]) -> Iterator["_Span"]:
    """Spans in order of start, each as soon as nothing more can be found of it."""
    for near in _neighbours(spans):
        left = {span.number: span for span in near}
        try:
            for span in _chosen_frames(video, near):
                yield left.pop(span.number)
        except IrregularError:
            pass
        else:
            # What no packet promises is past the end.
            for span in [span for span in left.values() if span.found == span.promised]:
                yield left.pop(span.number)
        if left:
            yield from _all_frames(video, [*left.values()])


def _neighbours(spans: list["_Span"]) -> Iterator[list["_Span"]]:
    near: list[_Span] = []
    reached_us = 0
    for span in spans:
        if near and span.times_us[0] > reached_us + _FAR_US:
            yield near
            near = []
        near.append(span)
        reached_us = max(reached_us, span.times_us[-1])
    if near:
        yield near


def _chosen_frames(video: "_Video", spans: list["_Span"]) -> Iterator["_Span"]:
    """Decodes what the packets' times show to be needed; yields the spans that are whole.

    Raises:
      IrregularError: they do not tell.
    """
    places = _Places(spans)
    coming: dict[int, range] = {}

    def put(frames: Iterable[Any]) -> Iterator[_Span]:
        for frame in frames:
            if frame.pts is not None and (times := coming.pop(video.us(frame.pts), None)):
                yield from places.put(times, video.scaled(frame))

    video.seek(places.times_us[0])
    for step in schedule(video.packets(), places.times_us):
        if step.afresh:
            yield from put(video.decode(None))
            video.forget()
            if coming:  # frames that do not come: their spans must not wait for them
                raise IrregularError
        if step.times:
            coming[step.coded.start_us] = step.times
            places.promise(step.times)
        video.skip_others(not step.times)
        yield from put(video.decode(step.coded.packet))
    yield from put(video.decode(None))


def _all_frames(video: "_Video", spans: list["_Span"]) -> Iterator["_Span"]:
    """Decodes everything and looks at the frames' own times; yields every span, whole or not."""
    for span in spans:
        span.begin_again()
    places = _Places(spans)
    times_us, at = places.times_us, 0
    for start_us in (times_us[0], None):
        video.seek(start_us)
        last, end_us = None, 0
        for begins_us, ends_us, frame in video.frames():
            if last is None and start_us is not None and begins_us > times_us[0]:
                break  # too far, as happens without an index: from the beginning, then
            if first := range(at, bisect.bisect_left(times_us, begins_us)):
                # What is before the first frame shows the first frame.
                yield from places.put(first, video.scaled(frame if last is None else last))
                at = first.stop
            if at == len(times_us):
                return
            last, end_us = frame, max(end_us, ends_us)
        if last is not None:
            rest = range(at, bisect.bisect_left(times_us, end_us))
            yield from places.put(rest, video.scaled(last))
            break
    yield from (span for span in spans if not span.told)


class _Places:
    """Where the frames of several spans go, by their times."""

    def __init__(self, spans: list["_Span"]) -> None:
        places = [(time_us, span, i) for span in spans for i, time_us in enumerate(span.times_us)]
        places.sort(key=lambda place: place[0])
        self.times_us = [time_us for time_us, _, _ in places]
        self._places = [(span, i) for _, span, i in places]

    def promise(self, times: range) -> None:
        for span, _ in self._places[times.start : times.stop]:
            span.promised += 1

    def put(self, times: range, image: Any) -> Iterator["_Span"]:
        """Yields the spans that this makes whole."""
        for span, i in self._places[times.start : times.stop]:
            if span.put(i, image):
                yield span


class _Span:
    """A span's frames, as far as they are there."""

    def __init__(self, number: int, times_us: Sequence[int]) -> None:
        self.number, self.times_us = number, times_us
        self.begin_again()

    def begin_again(self) -> None:
        """Forgets the frames that are there."""
        self._images: list[Any] = [None] * len(self.times_us)
        self.promised = 0  # frames that packets have
        self.told = False

    def put(self, i: int, image: Any) -> bool:
        """Takes a frame; whether the span is whole by it. Of two for one time the first counts."""
        if self.told or self._images[i] is not None:
            return False
        self._images[i] = image
        return self.whole

    @property
    def found(self) -> int:
        """Frames that are there."""
        return sum(image is not None for image in self._images)

    @property
    def whole(self) -> bool:
        return self.found == len(self.times_us)

    def write(self, out: BinaryIO, video: "_Video") -> None:
        """Tells what became of the span, and lets go of its frames."""
        images, whole = [image for image in self._images if image is not None], self.whole
        self._images.clear()
        self.told = True
        sizes = {(image.width, image.height) for image in images}
        answer: dict[str, Any] = {"span": self.number}
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


class _RefusedError(Exception):
    """A video that must not be decoded: the message that says why."""


class _Video:
    """An open file's first video stream."""

    def __init__(self, container: Any, request: dict[str, Any]) -> None:
        self._container, self._request = container, request
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [one for one in container.streams.video if not one.disposition & pictures]
        if not streams:
            raise _RefusedError({"refused": "no stream"})
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
            raise _RefusedError({"refused": "pixels", "width": width, "height": height})

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


if __name__ == "__main__":
    main()
