"""Breaks in the chain of a container's units, where data is lost or overwritten.

Demuxers resume after such a break without an error, or report it at another offset. MP4 has no
such chain. MPEG-TS has continuity counters instead, which its demuxer checks.
"""

import bisect
import functools
import os
from collections.abc import Callable
from typing import NamedTuple

_HEAD_BYTES = 24  # bytes of a unit's header, which hold its kind and length
_WINDOW = 1 << 16
_MAX_LACKING = 4  # bytes that may be missing at the end: an unread length field, or padding
_MAX_ZEROS = 2048  # maximum padding after a pack of an MPEG program stream, bytes

_EBML_SKIPPED = {
    *(b"\x1a\x45\xdf\xa3", b"\x11\x4d\x9b\x74", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b"),
    *(b"\x1c\x53\xbb\x6b", b"\x10\x43\xa7\x70", b"\x19\x41\xa4\x69", b"\x12\x54\xc3\x67"),
    *(b"\xe7", b"\xa3", b"\xa0", b"\xab", b"\xa7", b"\xec", b"\xbf", b"\xaf", b"\x58\x54"),
}
_EBML_ENTERED = {b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"}  # Segment, Cluster
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # file properties object
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_OTHERS = (
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),  # the header
    bytes.fromhex("90080033b1e5cf1189f400a0c90349cb"),  # indices
    bytes.fromhex("d329e2d6da35d111903400a0c90349be"),
)
_ASF_PACKET = b"\x82\0\0"


class _Form(NamedTuple):
    length: Callable[[bytes], int]  # unit header to length, without nested units; 0 if unknown
    start: bytes  # first bytes of a unit at which the chain may resume


def _riff(head: bytes) -> int:
    kind, size = head[:4], int.from_bytes(head[4:8], "little")
    if kind in (b"RIFF", b"LIST") and head[8:12] in (b"AVI ", b"AVIX", b"movi", b"rec "):
        return 12
    is_kind = len(head) >= 8 and kind.isascii() and kind.decode().isprintable()
    return 8 + size + size % 2 if is_kind else 0


def _flv(head: bytes) -> int:
    if head[:3] == b"FLV":
        return int.from_bytes(head[5:9], "big") + 4
    is_tag = head[0] & 0x1F in (8, 9, 18) and not any(head[8:11])
    return 11 + int.from_bytes(head[1:4], "big") + 4 if is_tag else 0


def _mpeg(head: bytes) -> int:
    if head[:3] != b"\0\0\1" or len(head) < 4:
        return 0
    if head[3] == 0xBA and len(head) > 13:
        return 14 + head[13] % 8 if head[4] >> 6 == 1 else 12
    if head[3] == 0xB9:
        return 4
    return 6 + int.from_bytes(head[4:6], "big") if head[3] >= 0xBB else 0


def _ebml(head: bytes) -> int:
    if not head[0]:
        return 0
    width = 9 - head[0].bit_length()
    kind, rest = head[:width], head[width:]
    if not rest or not rest[0]:
        return 0
    more = 9 - rest[0].bit_length()
    if kind in _EBML_ENTERED:
        return width + more
    size = int.from_bytes(rest[:more], "big") - (1 << 7 * more)
    return width + more + size if kind in _EBML_SKIPPED else 0


def _asf(packet_bytes: int, head: bytes) -> int:
    if head.startswith(_ASF_PACKET):
        return packet_bytes
    if head[:16] == _ASF_DATA:
        return 50
    return int.from_bytes(head[16:24], "little") if head[:16] in _ASF_OTHERS else 0


_FORMS = {
    "avi": _Form(_riff, b""),
    "flv": _Form(_flv, b""),
    "mpeg": _Form(_mpeg, b"\0\0\1\xba"),
    "matroska,webm": _Form(_ebml, b"\x1f\x43\xb6\x75"),
}


def chain(descriptor: int, container: str) -> "Chain | None":
    """Return the chain of an open file's units; None if its container has none."""
    if container == "asf":
        header = os.pread(descriptor, _WINDOW, 0)
        stated = header.find(_ASF_FILE)
        first = header.find(_ASF_DATA) + 50
        if min(stated, first) < 0 or not header.startswith(_ASF_PACKET, first):
            return None
        packet_bytes = int.from_bytes(header[stated + 92 : stated + 96], "little")
        return Chain(descriptor, _Form(functools.partial(_asf, packet_bytes), _ASF_PACKET))
    if container == "avi" and _has_index(descriptor):
        return None  # The index holds more: the packets' offsets and times.
    return Chain(descriptor, _FORMS[container]) if container in _FORMS else None


def _has_index(descriptor: int) -> bool:
    """Return whether an AVI has an index at the offset that its header implies."""
    place = 12
    while len(head := os.pread(descriptor, _HEAD_BYTES, place)) >= 8:
        place += 8 + int.from_bytes(head[4:8], "little")
        if head[8:12] == b"movi":
            return b"idx1" in os.pread(descriptor, 5, place)
    return False


class Chain:
    """The units of an open file, followed up to an offset."""

    def __init__(self, descriptor: int, form: _Form) -> None:
        """Begin before the file's first unit."""
        self._descriptor, self._form = descriptor, form
        # Seeks find the size, because a confined process may not use the other calls.
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        self._size = os.lseek(descriptor, 0, os.SEEK_END)
        os.lseek(descriptor, before, os.SEEK_SET)
        self._unit = self._place = 0  # offsets of the last unit followed and of the next
        self._breaks: list[int] = []  # offsets of the units that no other follows

    def is_broken(self, start: int, end: int) -> bool:
        """Return whether the chain breaks after a unit that begins in [`start`, `end`], bytes.

        The missing or overwritten data begins in that unit.
        """
        while self._unit <= end and self._place < self._size:
            self._follow()
        first = bisect.bisect_left(self._breaks, start)
        return first < len(self._breaks) and self._breaks[first] <= end

    def _follow(self) -> None:
        place = self._place
        head = os.pread(self._descriptor, _HEAD_BYTES, place)
        length = self._form.length(head)
        if not length and self._form.length is _mpeg and (zeros := self._zeros(place)):
            length = zeros
        if not length and self._form.length is _riff and place:
            # Some writers do not pad units of odd length.
            head = os.pread(self._descriptor, _HEAD_BYTES, place - 1)
            length = max(0, self._form.length(head) - 1)
        if length and place + length <= self._size + _MAX_LACKING:
            self._unit, self._place = place, place + length
            return
        self._breaks.append(self._unit)
        self._unit = self._place = self._next(place + 1)

    def _zeros(self, place: int) -> int:
        """Return the number of zero bytes that pad a pack."""
        window = os.pread(self._descriptor, _MAX_ZEROS + 4, place)
        rest = window.lstrip(b"\0")
        if not rest and len(window) <= _MAX_ZEROS:
            return len(window)  # The padding reaches the file's end.
        return len(window) - len(rest) - 2 if rest.startswith(b"\1\xba") else 0

    def _next(self, place: int) -> int:
        """Return the offset at which the chain may resume, at the latest the file's end."""
        if not self._form.start:
            return self._size
        while place < self._size:
            window = os.pread(self._descriptor, _WINDOW, place)
            found = window.find(self._form.start)
            if found >= 0:
                return place + found
            place += max(1, len(window) - len(self._form.start) + 1)
        return self._size
