"""The TFRecord framing of a record in a shard file.

Each frame is the length (uint64), the masked CRC32C of the length (uint32), the record, and the
masked CRC32C of the record (uint32). All are little-endian. Source: TensorFlow's record_writer.h.
"""

import struct

import google_crc32c

_MASK_DELTA = 0xA282EAD8
HEADER_BYTES = 12
FOOTER_BYTES = 4


class CorruptRecordError(ValueError):
    """A frame whose length or checksum is wrong."""


def _masked_crc32c(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame(record: bytes) -> bytes:
    """Return the frame of one serialised record.

    >>> unframe(frame(b"clip"))
    b'clip'
    """
    length = struct.pack("<Q", len(record))
    return b"".join(
        (
            length,
            struct.pack("<I", _masked_crc32c(length)),
            record,
            struct.pack("<I", _masked_crc32c(record)),
        )
    )


def unframe(framed: bytes) -> bytes:
    """Return the record of one frame, after checks of its length and both checksums.

    Raises:
      CorruptRecordError: the frame is truncated or too long, or a checksum differs.

    >>> unframe(frame(b"clip")[:-1])
    Traceback (most recent call last):
      ...
    protos.tfrecord.CorruptRecordError: a frame has 19 bytes instead of 20
    """
    minimum = HEADER_BYTES + FOOTER_BYTES
    if len(framed) < minimum:
        raise CorruptRecordError(
            f"a frame of {len(framed)} bytes is shorter than the minimum, {minimum}"
        )
    length, length_crc = struct.unpack_from("<QI", framed)
    if length_crc != _masked_crc32c(framed[:8]):
        raise CorruptRecordError(f"the checksum of the length ({length}) is wrong")
    whole = HEADER_BYTES + length + FOOTER_BYTES
    if len(framed) != whole:
        raise CorruptRecordError(f"a frame has {len(framed)} bytes instead of {whole}")
    record = framed[HEADER_BYTES:-FOOTER_BYTES]
    (record_crc,) = struct.unpack_from("<I", framed, len(framed) - FOOTER_BYTES)
    if record_crc != _masked_crc32c(record):
        raise CorruptRecordError(f"the checksum of a record of {length} bytes is wrong")
    return record
