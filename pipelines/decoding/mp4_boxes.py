"""Properties of MP4 and QuickTime tracks that decoders do not expose: edit lists, encryption."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

ENCRYPTED = "the video is encrypted: decrypt it first"

_MAX_BOXES = 10_000  # maximum number of boxes that are parsed
_MAX_BYTES = 1 << 16  # maximum bytes read of a track's sample description


def joins_parts(file: BinaryIO) -> bool:
    """Return whether a track of the file joins several parts, or may do so.

    Demuxers then return packets whose times run backwards, and seeks land at wrong positions.

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
            if kind == b"cmov" or boxes > _MAX_BOXES:  # `cmov` is a compressed header.
                return True
            if kind == b"elst" and _parts(file, start, size) > 1:
                return True
    except (struct.error, OSError):
        return True
    return False


def is_encrypted(file: BinaryIO) -> bool:
    """Return whether a video track of the file is encrypted.

    >>> import io
    >>> is_encrypted(io.BytesIO(b"no MP4"))
    False
    """
    kind_of_track, boxes = b"", 0
    try:
        end = file.seek(0, 2)
        for kind, start, size in _boxes(
            file, 0, end, (b"moov", b"trak", b"mdia", b"minf", b"stbl")
        ):
            boxes += 1
            if boxes > _MAX_BOXES:
                return False
            if kind == b"hdlr" and size >= 12:
                file.seek(start)
                name = file.read(12)[8:]
                kind_of_track = kind_of_track if name in (b"url ", b"alis") else name
            elif kind == b"stsd" and kind_of_track == b"vide":
                file.seek(start)
                if b"sinf" in file.read(min(size, _MAX_BYTES)):
                    return True
    except (struct.error, OSError):
        return False
    return False


def _boxes(
    file: BinaryIO, start: int, end: int, opened: tuple[bytes, ...]
) -> Iterator[tuple[bytes, int, int]]:
    """Yield each box's kind, and the offset and size of its content in bytes."""
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
            return  # Neither this function nor a demuxer can find the next box.
        yield kind, start + head, size - head
        if kind in opened:
            yield from _boxes(file, start + head, min(end, start + size), opened)
        start += size


def _parts(file: BinaryIO, start: int, size: int) -> int:
    """Return the number of entries of an edit list that show frames."""
    file.seek(start)
    version, count = struct.unpack(">B3xI", file.read(8))
    form = ">QqI" if version else ">IiI"
    count = min(count, max(0, size - 8) // struct.calcsize(form))
    entries = struct.iter_unpack(form, file.read(count * struct.calcsize(form)))
    return sum(media_time != -1 for _, media_time, _ in entries)
