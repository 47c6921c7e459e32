"""Packets that an edit list hides, for a decoder that would discard their frames."""

import av
from av.packet import Packet


def unhidden(packet: Packet) -> Packet:
    """Return a copy of a packet whose frame the decoder returns."""
    # Decoders read past a packet's end. A packet allocated by size has zeros there. A packet made
    # of bytes lies in Python's memory, and the decoder would read the bytes after it.
    copy = av.Packet(packet.size)
    memoryview(copy)[:] = memoryview(packet)
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    for data in packet.iter_sidedata():
        copy.set_sidedata(data)
    return copy
