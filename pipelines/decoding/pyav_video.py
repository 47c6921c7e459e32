"""A video file as PyAV opens it: its packets, its frames, and their times."""

import collections
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import av
from av.error import FFmpegError
from av.format import Flags
from av.stream import Disposition
from av.video.frame import PictureType

from pipelines.decoding import codecs
from pipelines.decoding.chains import Chain, chain
from pipelines.decoding.containers import NOT_LISTED, OTHER_CONTAINER
from pipelines.decoding.decoder_messages import Complaints
from pipelines.decoding.frame_times import FrameTimes
from pipelines.decoding.integrity import Soundness
from pipelines.decoding.last_frame import LastFrame
from pipelines.decoding.mp4_boxes import ENCRYPTED, is_encrypted, joins_parts
from pipelines.decoding.pyav_losses import Losses
from pipelines.decoding.pyav_picture import Pictures
from pipelines.decoding.schedule import Coded, IrregularError

_ENCRYPTED = {"refused": "undecodable", "told": ENCRYPTED}
_ENCRYPTED_TAGS = ("encv", "drmi")
_KEY_TYPES = (PictureType.I, PictureType.NONE)  # a key frame of H.264 may be no whole picture


class RefusedError(Exception):
    """A video that must not be decoded: the message that says why."""


class Shown(NamedTuple):
    """A decoded frame, and when it is on screen: microseconds."""

    start_us: int
    end_us: int  # if no other comes
    frame: Any
    sound: bool  # whether the decoder reports no error that concerns it


class Video:
    """An open file's first video stream."""

    def __init__(self, file: BinaryIO, opened: Callable[[], Any], request: dict[str, Any]) -> None:
        """Opens the file.

        Args:
          file: it.
          opened: returns a container that reads it from where it stands.
          request: what is asked for, and within which limits.

        Raises:
          RefusedError: it must not be decoded.
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
        # AVI and ASF have no times of presentation. Those that their readers make up are wrong
        # where there are B-frames, above all where each is in one packet with the frame before it,
        # as XviD and DivX wrote them.
        self._made_up = container.format.name in ("avi", "asf")
        self.stated_us: int | None = container.duration
        self.can_seek, self.can_choose = codecs.ways(container.format.name, self._codec.name)
        if "mov" in container.format.name:
            self.can_seek, self.can_choose = whole and self.can_seek, whole and self.can_choose
        self._reordered = False  # whether frames were seen that are not decoded as they are shown
        self._number = 0  # of the packets read
        if "short_side" in request:
            self.pictures = Pictures(
                container, stream, short_side=request["short_side"], widest=request["widest"]
            )

    def _open(self) -> None:
        """Opens the file, anew if it is open."""
        if self._container is not None:
            self._container.close()
        self._file.seek(0)
        try:
            self._container = self._opened()
        except FFmpegError:
            if self._complaints.take().startswith(NOT_LISTED):
                raise RefusedError({"refused": "undecodable", "told": OTHER_CONTAINER}) from None
            raise
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [one for one in self._container.streams.video if not one.disposition & pictures]
        if not streams:
            raise RefusedError({"refused": "no stream"})
        self._stream = streams[0]
        self._codec = self._stream.codec_context
        if self._codec is None:
            raise RefusedError({"refused": "undecodable", "told": "its codec is unknown"})
        # To learn about its streams, FFmpeg decodes their beginnings, sound included.
        others = {one.codec_context.name for one in self._container.streams if one.codec_context}
        self._complaints.ignored = frozenset(others - {self._codec.name})
        self._codec.thread_count = 1
        self._codec.options = {"max_pixels": str(self._request["pixels"])}
        self._codec.copy_opaque = True  # so that frames bear their packets' numbers
        self._check_pixels(self._codec.width, self._codec.height)
        if self._codec.codec_tag in _ENCRYPTED_TAGS or "enc_key_id" in self._stream.metadata:
            raise RefusedError(_ENCRYPTED)
        unit = self._stream.time_base
        self._ticks, self._us = unit.denominator, 1_000_000 * unit.numerator
        self._origin = _rounded((self._container.start_time or 0) * self._ticks, self._us)
        # Complaints of what was read on opening do not say where it is; the chain does. Matroska's
        # is followed for that alone: it is long, and what is read later is complained of in time.
        name = self._container.format.name
        if self._chain is None and (name != "matroska,webm" or self._complaints.take()):
            self._chain = chain(self._file.fileno(), name)
        if self._chain is not None:
            self._complaints.take()
        rate = self._stream.average_rate
        self._usual_us = round(1_000_000 / rate) if rate else 1
        # MP4 states when frames are decoded.
        self._stated = "mov" not in self._container.format.name
        self._untouched = True
        self._begin(needs_key=self._codec.name in codecs.KEYED)

    def _begin(self, needs_key: bool) -> None:
        """Forgets what packets and frames before this place in the file said."""
        self._soundness, self._times = Soundness(needs_key), FrameTimes(self._origin)
        self._losses = Losses(self._container.format.name, self._stream, self._chain)
        self._hidden: set[int] = set()  # numbers of packets that are decoded and not shown
        self._lost_us: list[tuple[int, int]] = []  # from and until when frames may be missing
        self._last = self.last_frame()  # of the packets
        self._last_us: int | None = None  # when the last frame comes on
        self._first_us: int | None = None  # when the first packet's frame comes on
        self._before_us = 0  # when the frames of all packets but the last have left the screen
        self._decoded_us: int | None = None  # when the last packet but one is decoded
        self.doubtful = False  # whether a packet failed that later frames may need
        self.complaint = ""

    def last_frame(self) -> LastFrame:
        """Returns what finds the end of the last frame."""
        return LastFrame(self._stated, self._usual_us)

    @property
    def packets_end_us(self) -> int:
        """When the frames of the packets read so far have left the screen; 0 before the first."""
        return self._last.us

    def us(self, ticks: int) -> int:
        """Returns a time of the stream from the beginning of the file, microseconds."""
        return _rounded((ticks - self._origin) * self._us, self._ticks)

    def seek(self, time_us: int | None) -> None:
        """Goes to the last key frame that is not after a time, so far as the container knows.

        None: to the beginning.
        """
        if time_us is None:
            if not self._untouched:
                # Not by a seek: demuxers hand out palettes and the like only once.
                self._open()
            return
        try:
            self._container.seek(
                _rounded(time_us * self._ticks, self._us) + self._origin, stream=self._stream
            )
        except FFmpegError:  # AVI's reader refuses what is before its first time
            self._open()
            return
        self._untouched = False
        self.forget()
        self._begin(needs_key=True)

    def forget(self) -> None:
        """Make the decoder ready for the key frame of a packet that was read."""
        if self._codec.is_open:
            self._codec.flush_buffers()
        self._soundness, self._last_us = Soundness(needs_key=True), None

    def skip_others(self, skip: bool) -> None:
        """Leaves out frames that no other frame needs (B-frames, mostly), or no longer."""
        name = self._codec.name
        if name in codecs.SKIPPING:
            skip = skip and (self._reordered or name not in codecs.REORDERING)
            self._codec.skip_frame = "NONREF" if skip else "DEFAULT"

    def packets(self) -> Iterator[Coded]:
        """Yields the packets from here on.

        Raises:
          IrregularError: one has no times.
        """
        newest_us = None
        for packet in self._demuxed():
            if packet.pts is None or packet.dts is None:
                raise IrregularError
            start_us = self.us(packet.pts)
            # Where times never run backwards there are no B-frames, or the times hide them.
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

    def frames(self) -> Iterator[Shown]:
        """Yields every frame from here on, in order of presentation."""
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
                else:  # the last ones, when packets have ended
                    start_us = end_us
                end_us = self._end_us(frame, start_us)
                yield Shown(start_us, end_us, frame, self._is_sound(frame, start_us))

    def promised(self, packet: Any) -> Iterator[Shown]:
        """Yields the frames that a packet brings out; None: all that the decoder still has.

        Raises:
          IrregularError: one is not at the time of its packet, not in order or not sound.
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
            yield Shown(start_us, self._end_us(frame, start_us), frame, sound)

    def lost_us(self, start_us: float, end_us: float) -> float | None:
        """Return until when a frame is on screen for certain; None: until the next one.

        Args:
          start_us: when it comes on; later calls are for later times.
          end_us: when it leaves the screen if no other comes.
        """
        self._lost_us = [lost for lost in self._lost_us if lost[1] > start_us]
        return min((max(from_us, end_us) for from_us, _ in self._lost_us), default=None)

    def until_us(self, last: Shown) -> int:
        """Returns when the last frame leaves the screen, or the last that could not be decoded."""
        if not self._stated and self._last.us > last.start_us:
            return self._last.us
        if self._made_up or not last.sound or self.lost_us(last.start_us, last.end_us) is not None:
            return max(last.end_us, self._last.us)
        return last.end_us

    def _is_hidden(self, frame: Any) -> bool:
        return frame.opaque in self._hidden

    def _is_sound(self, frame: Any, start_us: int | None) -> bool:
        """Whether a frame can be relied on; takes every frame, in the order in which they come."""
        return self._soundness.frame(
            self._number if frame.opaque is None else frame.opaque,
            start_us,
            key=frame.key_frame and frame.pict_type in _KEY_TYPES,
            corrupt=frame.is_corrupt,
        )

    def _demuxed(self) -> Iterator[Any]:
        """Yields packets that are not empty; a file that cannot be read on ends there."""
        self._untouched = False
        settings: Any = None
        try:
            for packet, complaint in self._read():
                if packet.has_sidedata("encryption_info"):
                    raise RefusedError(_ENCRYPTED)
                # The packet that brings new settings of the decoder may be left out.
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

    def _read(self) -> Iterator[tuple[Any, str]]:
        """Yield each packet that is not empty, with what the demuxer complains of.

        In streams, what is wrong with a packet may have begun at the end of the one before.
        """
        held, told, failed = None, "", None
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
                if is_stream and not told and packet is not None:
                    told = complaint or ("the next packet is damaged" if packet.is_corrupt else "")
                yield held, told
            if packet is None:
                break
            held, told = packet, complaint
        if failed is not None:
            raise failed

    def _time_us(self, packet: Any) -> int | None:
        ticks = packet.dts if packet.pts is None or self._made_up else packet.pts
        return None if ticks is None else self.us(ticks)

    def _end_us(self, shown: Any, start_us: int) -> int:
        if not shown.duration:
            return start_us + self._usual_us
        return start_us + _rounded(shown.duration * self._us, self._ticks)

    def _decoded(self, packet: Any) -> list[Any]:
        """Returns the frames that a packet brings out; None: all that the decoder still has."""
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

    def _fail(self, packet: Any, complaint: str, missing_us: int | None = None) -> None:
        """Note what is wrong with a packet; before it, others may be missing from a time on."""
        self.complaint = complaint
        time_us = None if packet is None else self._time_us(packet)
        self._losses.failed()
        self._soundness.failed(self._number, time_us)
        if time_us is None or self._first_us is None or time_us >= self._first_us:
            self.doubtful = True
        if packet is None or self._number not in self._hidden:  # else no shown frame is its own
            # Packets before this one may be lost, too.
            times_us = [self._before_us]
            times_us += [known for known in (time_us, missing_us) if known is not None]
            self._lost_us.append((min(times_us), max(times_us)))

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._request["pixels"]:
            raise RefusedError({"refused": "pixels", "width": width, "height": height})

    def scaled(self, frame: Any) -> Any:
        """Returns the frame at its final size, RGB, not turned yet."""
        self._check_pixels(frame.width, frame.height)
        return self.pictures.scaled(frame)

    def lead_us(self) -> int:
        """Return how long sound runs before the picture in a container of jumping clocks.

        In these, the ffmpeg program leaves out of its times what it is not asked to read.
        """
        if not self._container.format.flags & Flags.ts_discont.value:
            return 0
        begins = self._stream.start_time
        return 0 if begins is None else max(0, self.us(begins))

    def lacks(self) -> bool:
        """Return whether a packet is damaged or missing, or the first one is no key frame."""
        keyed = self._codec.name in codecs.KEYED
        for packet in self._demuxed():
            if self.complaint or (keyed and not packet.is_keyframe):
                return True
            keyed = False
        return bool(self.complaint)

    def end_us(self, from_us: int) -> int:
        """When the last frame leaves the screen; 0 where the file is not as long as it states.

        If not even the sound is as long as stated, the file is truncated, and the video would
        have gone on.
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
        # Matroska's length counts from 0, though its first frame may come later.
        length_us = (self.stated_us or 0) - max(0, begins_us)
        least_us = length_us - self._request["length_slack_us"]
        if max((last.us for last in ends_us.values()), default=0) < least_us:
            return 0
        return ends_us[self._stream.index].us


def unhidden(packet: Any) -> Any:
    """Return a copy of a packet whose frame the decoder hands out."""
    # Decoders read past a packet's end. A packet of a size has zeros there; one made of bytes
    # lies in Python's memory, and what follows it there is decoded.
    copy = av.Packet(packet.size)
    memoryview(copy)[:] = memoryview(packet)
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    for data in packet.iter_sidedata():
        copy.set_sidedata(data)
    return copy


def _rounded(numerator: int, denominator: int) -> int:
    """A quotient to the nearest whole number, halves away from zero, as ffmpeg rounds times."""
    sign = -1 if numerator < 0 else 1
    return sign * ((2 * abs(numerator) + denominator) // (2 * denominator))
