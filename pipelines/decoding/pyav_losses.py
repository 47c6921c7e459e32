"""A detector of incomplete packets, and of gaps where packets are lost, per container.

It cannot detect lost MPEG-TS frames that no other frame needs, if the counters match again. The
previous frame then stays on screen for less than 0.2 s, as in a video of variable frame rate.
"""

import re

from av.packet import Packet
from av.video.stream import VideoStream

from pipelines.decoding.chains import Chain
from pipelines.decoding.codecs import WITHOUT_ZEROS

_RECENT = 64  # packets
_DENSE_STEPS = 8  # consecutive steps of at most half a gap
_GAP_US = 200_000  # microseconds between packets of MPEG streams, whose frames come evenly
# A sector that was never written reads as zeros. After padding comes a start code or the end.
_ZEROS = bytes(256)
_ZEROED = re.compile(rb"\0{256,}+[^\1]")
# Containers whose packet times are counted, or stated for few packets only.
_COUNTED = frozenset({"avi", "mpeg"})
_MARKED = frozenset({"mpeg1video", "mpeg2video"})  # codecs that carry their own times
_AVI_HEADERS = (0, 8)  # possible bytes from a packet's offset in the index to its content


class Losses:
    """A check of a stream's packets for losses, from a position in the file on."""

    def __init__(self, format_name: str, stream: VideoStream, chain: Chain | None) -> None:
        """Begin before the first packet."""
        assert stream.time_base is not None
        self._format, self._stream, self._chain = format_name, stream, chain
        self._end: int | None = None  # end of the last packet, bytes from the file's beginning
        rate = stream.average_rate
        self._usual_ticks = float(1 / (rate * stream.time_base)) if rate else None
        self._gap_ticks = _GAP_US / float(stream.time_base) / 1e6
        name = stream.codec_context.name
        self._is_raw, self._has_no_zeros = name == "rawvideo", name in WITHOUT_ZEROS
        self._is_counted = format_name in _COUNTED and name not in _MARKED
        self._decoded_at: int | None = None
        self._dense_steps = 0  # consecutive
        self._since_failure = _RECENT

    def failed(self) -> None:
        """Record that the packet of the last call failed."""
        self._since_failure = 0

    def complaint(self, packet: Packet) -> str:
        """Return what is missing in the next packet or before it, or "" without a loss."""
        self._since_failure += 1
        gap = self._is_after_gap(packet)
        if packet.is_corrupt:
            return "the container marks a packet as damaged"
        if self._is_raw and self._is_short(packet):
            return "a packet is too short for a frame"
        if self._format == "avi" and self._is_displaced(packet):
            return "a packet is not where the index says"
        if self._is_unchained(packet):
            return "a part of the file is missing or overwritten"
        if self._has_no_zeros and _ZEROS in (data := bytes(packet)) and _ZEROED.search(data):
            return "a packet has zeros in place of data"
        return "packets are missing" if gap else ""

    def _is_short(self, packet: Packet) -> bool:
        """Return whether a packet is too short, so its decoder would show uninitialized memory."""
        codec = self._stream.codec_context
        if codec.format is None:
            return False
        return packet.size < codec.width * codec.height * codec.format.bits_per_pixel // 8

    def _is_displaced(self, packet: Packet) -> bool:
        """Return whether packets before this one are lost, so that its time is too early.

        AVI's demuxer counts packets to get their times.
        """
        if packet.dts is None or packet.pos is None:
            return False
        entries = self._stream.index_entries
        place = entries.search_timestamp(packet.dts, any_frame=True)
        return place >= 0 and packet.pos - entries[place].pos not in _AVI_HEADERS

    def _is_unchained(self, packet: Packet) -> bool:
        """Return whether the chain of units breaks in this packet or since the previous one.

        Where times are counted, all later times are wrong.
        """
        if self._chain is None:
            return False
        start = self._end if packet.pos is None else packet.pos
        if start is None:
            return False
        before = start if self._end is None else min(self._end, start)
        end = self._end = start + packet.size
        return self._chain.is_broken(0 if self._is_counted else before, end)

    def _is_after_gap(self, packet: Packet) -> bool:
        """Return whether the time since the previous packet is so unusual that it means a loss.

        Soon after an error, or in an MPEG stream, a loss may leave no other trace.
        """
        if packet.dts is None:
            return False
        before, self._decoded_at = self._decoded_at, packet.dts
        if before is None:
            return False
        step = packet.dts - before
        dense, self._dense_steps = self._dense_steps, self._dense_steps + 1
        if step > self._gap_ticks / 2:
            self._dense_steps = 0
        if self._since_failure < _RECENT and self._usual_ticks is not None:
            return step > 1.5 * self._usual_ticks
        dense_before = dense >= _DENSE_STEPS and self._format in ("mpegts", "mpeg")
        return dense_before and step > self._gap_ticks
