"""A video file opened by PyAV: its packets, its frames, and their times."""

import collections
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from av.codec.context import Flags as CodecFlags
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame

from pipelines.decoding import codecs
from pipelines.decoding.chains import Chain, chain
from pipelines.decoding.containers import NOT_LISTED, OTHER_CONTAINER
from pipelines.decoding.decoder_messages import Complaints
from pipelines.decoding.frame_times import FrameTimes
from pipelines.decoding.integrity import FrameIntegrity
from pipelines.decoding.last_frame import LastFrame
from pipelines.decoding.mp4_boxes import ENCRYPTED, is_encrypted, joins_parts
from pipelines.decoding.pyav_losses import Losses
from pipelines.decoding.pyav_packet import unhidden
from pipelines.decoding.pyav_picture import Pictures
from pipelines.decoding.schedule import Coded, IrregularError

_ENCRYPTED = {"refused": "undecodable", "message": ENCRYPTED}
_ENCRYPTED_TAGS = ("encv", "drmi")
_KEY_TYPES = (PictureType.I, PictureType.NONE)  # an H.264 key frame may be an incomplete picture


class RefusedError(Exception):
    """A video that must not be decoded, with the answer that holds the reason."""


class TimedFrame(NamedTuple):
    """A decoded frame and its time on screen, microseconds."""

    start_us: int
    end_us: int  # end time if no other frame comes
    frame: VideoFrame
    sound: bool  # whether no reported error affects it


class Video:
    """An open file's first video stream."""

    def __init__(
        self, file: BinaryIO, opened: Callable[[], InputContainer], request: dict[str, Any]
    ) -> None:
        """Open the file.

        Args:
          file: the open file.
          opened: returns a container that reads the file from its current position.
          request: the request, with its limits.

        Raises:
          RefusedError: the file must not be decoded.
        """
        self._file, self._opened, self._request = file, opened, request
        if is_encrypted(file):
            raise RefusedError(_ENCRYPTED)
        whole = not joins_parts(file)
        self._complaints = Complaints()
        self._container: Any = None
        self._chain: Chain | None = None
        self._open()
        container, stream = self._container, self._stream
        # AVI and ASF have no presentation times. The times that their demuxers make up are wrong
        # with B-frames. They are worst where a B-frame shares a packet with the frame before it,
        # as XviD and DivX wrote them.
        self._made_up = container.format.name in ("avi", "asf")
        self.stated_us: int | None = container.duration
        self.can_seek, self.can_choose = codecs.ways(container.format.name, self._codec.name)
        if "mov" in container.format.name:
            self.can_seek, self.can_choose = whole and self.can_seek, whole and self.can_choose
        self._reordered = False  # whether decoding order was seen to differ from presentation order
        self._number = 0  # number of packets read
        if "short_side" in request:
            self.pictures = Pictures(
                container, stream, short_side=request["short_side"], widest=request["widest"]
            )

    def _open(self) -> None:
        """Open the file, or reopen it."""
        if self._container is not None:
            self._container.close()
        self._file.seek(0)
        try:
            self._container = self._opened()
        except FFmpegError:
            if self._complaints.take().startswith(NOT_LISTED):
                raise RefusedError({"refused": "undecodable", "message": OTHER_CONTAINER}) from None
            raise
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [one for one in self._container.streams.video if not one.disposition & pictures]
        if not streams:
            raise RefusedError({"refused": "no stream"})
        self._stream = streams[0]
        self._codec = self._stream.codec_context
        if self._codec is None:
            raise RefusedError({"refused": "undecodable", "message": "its codec is unknown"})
        # To probe the streams, FFmpeg decodes their beginnings, audio included.
        others = {one.codec_context.name for one in self._container.streams if one.codec_context}
        self._complaints.ignored = frozenset(others - {self._codec.name})
        self._codec.thread_count = 1
        self._codec.options = {"max_pixels": str(self._request["pixels"])}
        self._codec.copy_opaque = True  # Frames carry their packets' numbers.
        # Otherwise libavcodec rounds a stream's crop on the left down to aligned addresses.
        self._codec.flags |= CodecFlags.unaligned
        self._check_pixels(self._codec.width, self._codec.height)
        if self._codec.codec_tag in _ENCRYPTED_TAGS or "enc_key_id" in self._stream.metadata:
            raise RefusedError(_ENCRYPTED)
        unit = self._stream.time_base
        self._ticks, self._us = unit.denominator, 1_000_000 * unit.numerator
        self._origin = _rounded((self._container.start_time or 0) * self._ticks, self._us)
        # Errors logged while opening have no offset, but the chain has one. Matroska's chain is
        # long, so it is followed only after such errors. Later errors come with their packets.
        name = self._container.format.name
        if self._chain is None and (name != "matroska,webm" or self._complaints.take()):
            self._chain = chain(self._file.fileno(), name)
        if self._chain is not None:
            self._complaints.take()
        rate = self._stream.average_rate
        self._usual_us = round(1_000_000 / rate) if rate else 1
        # MP4 states decoding times, not durations on screen.
        self._stated = "mov" not in self._container.format.name
        self._untouched = True
        self._begin(needs_key=self._codec.name in codecs.KEYED)

    def _begin(self, needs_key: bool) -> None:
        """Reset the state that depends on packets and frames before this position."""
        self._soundness, self._times = FrameIntegrity(needs_key), FrameTimes(self._origin)
        self._losses = Losses(self._container.format.name, self._stream, self._chain)
        self._hidden: set[int] = set()  # numbers of packets that are decoded but not shown
        self._lost_us: list[tuple[int, int]] = []  # intervals in which frames may be missing
        self._last = self.last_frame()  # last frame by the packets
        self._last_us: int | None = None  # start time of the last frame
        self._first_us: int | None = None  # start time of the first packet's frame
        self._before_us = 0  # end time of the frames of all packets except the last
        self._decoded_us: int | None = None  # decoding time of the last packet that states one
        self.doubtful = False  # whether a packet failed that later frames may need
        self.complaint = ""

    def last_frame(self) -> LastFrame:
        """Return an accumulator of the last frame's end time."""
        return LastFrame(self._stated, self._usual_us)

    @property
    def packets_end_us(self) -> int:
        """The end time of the frames of all packets read so far; 0 before the first."""
        return self._last.us

    def us(self, ticks: int) -> int:
        """Return a stream time as microseconds from the beginning of the file."""
        return _rounded((ticks - self._origin) * self._us, self._ticks)

    def seek(self, time_us: int | None) -> None:
        """Seek to the last key frame not after a time, as far as the container knows.

        None seeks to the beginning.
        """
        if time_us is None:
            if not self._untouched:
                # A seek would lose palettes and similar data, which demuxers return only once.
                self._open()
            return
        try:
            self._container.seek(
                _rounded(time_us * self._ticks, self._us) + self._origin, stream=self._stream
            )
        except FFmpegError:  # AVI's demuxer refuses times before its first one.
            self._open()
            return
        self._untouched = False
        self.forget()
        self._begin(needs_key=True)

    def forget(self) -> None:
        """Reset the decoder before the key frame of a packet that was read."""
        if self._codec.is_open:
            self._codec.flush_buffers()
        self._soundness, self._last_us = FrameIntegrity(needs_key=True), None

    def skip_others(self, skip: bool) -> None:
        """Skip frames that no other frame refers to (mostly B-frames), or stop skipping them."""
        name = self._codec.name
        if name in codecs.SKIPPING:
            skip = skip and (self._reordered or name not in codecs.REORDERING)
            self._codec.skip_frame = "NONREF" if skip else "DEFAULT"

    def packets(self) -> Iterator[Coded[Packet]]:
        """Yield the packets from the current position on.

        Raises:
          IrregularError: a packet lacks a time.
        """
        newest_us = None
        for packet in self._demuxed():
            if packet.pts is None or packet.dts is None:
                raise IrregularError
            start_us = self.us(packet.pts)
            # If times never run backwards, there are no B-frames, or the times hide them.
            self._reordered |= newest_us is not None and start_us < newest_us
            newest_us = start_us
            yield Coded(
                packet,
                start_us,
                self._end_us(packet, start_us),
                self.us(packet.dts),
                packet.is_keyframe,
                packet.opaque in self._hidden,
            )

    def frames(self) -> Iterator[TimedFrame]:
        """Yield every frame from the current position on, in order of presentation."""
        self.skip_others(False)
        end_us = 0
        for packet in itertools.chain(self._demuxed(), [None]):
            for frame in self._decoded(packet):
                if self._is_hidden(frame):
                    self._is_sound(frame, None if frame.pts is None else self.us(frame.pts))
                    continue
                if not self._made_up:
                    start_us = self.us(self._times.of(frame.pts, frame.dts, frame.duration or 0))
                elif frame.dts is not None:
                    start_us = self.us(frame.dts)
                else:  # The last frames have no time, because the packets have ended.
                    start_us = end_us
                end_us = self._end_us(frame, start_us)
                yield TimedFrame(start_us, end_us, frame, self._is_sound(frame, start_us))

    def promised(self, packet: Packet | None) -> Iterator[TimedFrame]:
        """Yield the frames that the decoder returns for a packet; None drains the decoder.

        Raises:
          IrregularError: a frame has no presentation time or is out of order.
        """
        for frame in self._decoded(packet):
            if frame.pts is None:
                raise IrregularError
            start_us = self.us(frame.pts)
            sound = self._is_sound(frame, start_us)
            if self._is_hidden(frame):
                continue
            if self._last_us is not None and start_us <= self._last_us:
                raise IrregularError
            self._last_us = start_us
            yield TimedFrame(start_us, self._end_us(frame, start_us), frame, sound)

    def lost_us(self, start_us: float, end_us: float) -> float | None:
        """Return the time until which a frame is certainly on screen; None: until the next frame.

        Args:
          start_us: the frame's start time; it increases from call to call.
          end_us: the frame's end time if no other frame comes.
        """
        self._lost_us = [lost for lost in self._lost_us if lost[1] > start_us]
        return min((max(from_us, end_us) for from_us, _ in self._lost_us), default=None)

    def until_us(self, last: TimedFrame) -> int:
        """Return the end time of the last frame, or of the last one that failed to decode."""
        if not self._stated and self._last.us > last.start_us:
            return self._last.us
        if self._made_up or not last.sound or self.lost_us(last.start_us, last.end_us) is not None:
            return max(last.end_us, self._last.us)
        return last.end_us

    def _is_hidden(self, frame: VideoFrame) -> bool:
        return frame.opaque in self._hidden

    def _is_sound(self, frame: VideoFrame, start_us: int | None) -> bool:
        """Return whether a frame is sound; call it for every frame, in the decoder's order."""
        return self._soundness.frame(
            frame.opaque if isinstance(frame.opaque, int) else self._number,
            start_us,
            key=frame.key_frame and frame.pict_type in _KEY_TYPES,
            corrupt=frame.is_corrupt,
        )

    def _demuxed(self) -> Iterator[Packet]:
        """Yield packets that are not empty, up to the end or the first read error."""
        self._untouched = False
        settings: Any = None
        try:
            for packet, complaint in self._read():
                if packet.has_sidedata("encryption_info"):
                    raise RefusedError(_ENCRYPTED)
                # The packet with new decoder settings may be skipped: repeat them at key frames.
                if packet.has_sidedata("new_extradata"):
                    settings = packet.get_sidedata("new_extradata")
                elif settings is not None and packet.is_keyframe:
                    packet.set_sidedata(settings)
                self._number += 1
                time_us = self._time_us(packet)
                hidden = packet.is_discard
                if hidden:
                    packet = unhidden(packet)
                    self._hidden.add(self._number)
                packet.opaque = self._number
                complaint = self._losses.complaint(packet) or complaint
                self._before_us = self._last.us
                decoded_us = self._decoded_us
                if packet.dts is not None:
                    self._decoded_us = self.us(packet.dts)
                if time_us is not None and not hidden:
                    self._last.add(time_us, self._end_us(packet, time_us))
                    self._first_us = time_us if self._first_us is None else self._first_us
                if complaint:
                    self._fail(packet, complaint, decoded_us)
                yield packet
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self.complaint = error.strerror

    def _read(self) -> Iterator[tuple[Packet, str]]:
        """Yield each packet that is not empty, with the demuxer's error or "".

        In streams, an error of a packet may have begun at the end of the previous one.
        """
        held, problem, failed = None, "", None
        is_stream = self._container.format.name in ("mpegts", "matroska,webm")
        packets = self._container.demux(self._stream)
        while failed is None:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                packet, failed = None, error
            complaint = self._complaints.take()
            if packet is not None and not packet.size:
                continue
            if held is not None:
                if is_stream and not problem and packet is not None:
                    problem = complaint or (
                        "the next packet is damaged" if packet.is_corrupt else ""
                    )
                yield held, problem
            if packet is None:
                break
            held, problem = packet, complaint
        if failed is not None:
            raise failed

    def _time_us(self, packet: Packet) -> int | None:
        ticks = packet.dts if packet.pts is None or self._made_up else packet.pts
        return None if ticks is None else self.us(ticks)

    def _end_us(self, shown: Packet | VideoFrame, start_us: int) -> int:
        if not shown.duration:
            return start_us + self._usual_us
        return start_us + _rounded(shown.duration * self._us, self._ticks)

    def _decoded(self, packet: Packet | None) -> list[VideoFrame]:
        """Return the frames that the decoder returns for a packet; None drains the decoder."""
        frames, failed = [], ""
        try:
            frames = self._codec.decode(packet)
        except EOFError:
            pass
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            failed = error.strerror
        if failed := self._complaints.take() or failed:
            self._fail(packet, failed)
        return frames

    def _fail(self, packet: Packet | None, complaint: str, missing_us: int | None = None) -> None:
        """Record a packet's error; packets before it may be missing from `missing_us` on."""
        self.complaint = complaint
        time_us = None if packet is None else self._time_us(packet)
        self._losses.failed()
        self._soundness.failed(self._number, time_us)
        if time_us is None or self._first_us is None or time_us >= self._first_us:
            self.doubtful = True
        if packet is None or self._number not in self._hidden:  # A hidden packet shows no frame.
            # Packets before this one may be lost too.
            times_us = [self._before_us]
            times_us += [known for known in (time_us, missing_us) if known is not None]
            self._lost_us.append((min(times_us), max(times_us)))

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._request["pixels"]:
            raise RefusedError({"refused": "pixels", "width": width, "height": height})

    def scaled(self, frame: VideoFrame) -> VideoFrame:
        """Return the frame at its final size, RGB, not rotated yet."""
        self._check_pixels(frame.width, frame.height)
        return self.pictures.scaled(frame)

    def lead_us(self) -> int:
        """Return the microseconds of audio before the picture, if timestamps may jump; else 0.

        For such containers, the ffmpeg program's times omit streams that it does not read.
        """
        if not self._container.format.flags & Flags.ts_discont.value:
            return 0
        begins = self._stream.start_time
        return 0 if begins is None else max(0, self.us(begins))

    def lacks(self) -> bool:
        """Return whether a packet is damaged or missing, or the first is not a key frame."""
        keyed = self._codec.name in codecs.KEYED
        for packet in self._demuxed():
            if self.complaint or (keyed and not packet.is_keyframe):
                return True
            keyed = False
        return bool(self.complaint)

    def end_us(self, from_us: int) -> int:
        """Return the last frame's end time; 0 if the file is shorter than it states.

        If the audio is shorter than stated too, the file is truncated and lacks video frames.
        """
        if from_us and self._container.format.name in codecs.INDEXED:
            self.seek(from_us)
        ends_us = collections.defaultdict(self.last_frame)
        begins_us = self._container.start_time or 0
        for packet in self._container.demux(self._stream, *self._container.streams.audio):
            shown = None if self._made_up else packet.pts
            ticks = packet.dts if shown is None else shown
            if packet.size and not packet.is_discard and ticks is not None:
                start_us, end_us = (
                    math.floor(at * packet.time_base * 1_000_000) - begins_us
                    for at in (ticks, ticks + (packet.duration or 0))
                )
                ends_us[packet.stream_index].add(start_us, end_us)
        # Matroska's duration counts from 0, though its first frame may come later.
        length_us = (self.stated_us or 0) - max(0, begins_us)
        min_us = length_us - self._request["length_slack_us"]
        if max((last.us for last in ends_us.values()), default=0) < min_us:
            return 0
        return ends_us[self._stream.index].us


def _rounded(numerator: int, denominator: int) -> int:
    """Return a quotient rounded to the nearest integer, halves away from zero, as ffmpeg does."""
    sign = -1 if numerator < 0 else 1
    return sign * ((2 * abs(numerator) + denominator) // (2 * denominator))
