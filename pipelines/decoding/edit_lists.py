"""Edit lists of MP4 and QuickTime files, which say which parts of a track are shown."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

_MOST_BOXES = 10_000  # that are looked at


def joins_parts(file: BinaryIO) -> bool:
    """Returns whether a track of the file joins several parts, or may do so.

    Demuxers then give packets whose times run backwards, and seeks go astray.

    >>> import io
    >>> def box(kind, content):
    ...     return struct.pack(">I", 8 + len(content)) + kind + content
    >>> def film(*edits):
    ...     entries = b"".join(struct.pack(">IiI", *edit, 1 << 16) for edit in edits)
    ...     listed = box(b"elst", struct.pack(">II", 0, len(edits)) + entries)
    ...     return io.BytesIO(box(b"moov", box(b"trak", box(b"edts", listed))))
    >>> joins_parts(film((500, -1), (1000, 0))), joins_parts(film((500, 0), (1000, 900)))
    (False, True)
    """
    boxes = 0
    try:
        end = file.seek(0, 2)
        for kind, start, size in _boxes(file, 0, end, (b"moov", b"trak", b"edts")):
            boxes += 1
            if kind == b"cmov" or boxes > _MOST_BOXES:  # a compressed header
                return True
            if kind == b"elst" and _parts(file, start, size) > 1:
                return True
    except (struct.error, OSError):
        return True
    return False


def _boxes(
    file: BinaryIO, start: int, end: int, opened: tuple[bytes, ...]
) -> Iterator[tuple[bytes, int, int]]:
    """Yields each box's kind, and where its content starts and how long it is."""
    while end - start >= 8:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            head = 16
        elif size == 0:
            size = end - start
        if size < head:
            return  # what is behind it cannot be found, by demuxers either
        yield kind, start + head, size - head
        if kind in opened:
            yield from _boxes(file, start + head, min(end, start + size), opened)
        start += size


def _parts(file: BinaryIO, start: int, size: int) -> int:
    """Returns how many entries of an edit list show something."""
    file.seek(start)
    version, count = struct.unpack(">B3xI", file.read(8))
    form = ">QqI" if version else ">IiI"
    count = min(count, max(0, size - 8) // struct.calcsize(form))
    entries = struct.iter_unpack(form, file.read(count * struct.calcsize(form)))
    return sum(media_time != -1 for _, media_time, _ in entries)
