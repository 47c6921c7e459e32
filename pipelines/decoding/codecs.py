"""Decoders and demuxers for which a part of a file gives the same pixels as the whole.

All others decode from the beginning of the file, without hints. The test matrix of videos in
tests/pipelines/decoding/test_matrix.py proves the lists. It is needed because a decoder may ignore
or remember a hint, and a container may state wrong times or key frames.
"""

# Decoders that need no data from before a key frame.
_RESTARTING = frozenset(
    {
        *("h264", "hevc", "mpeg4", "vp8", "vp9", "libdav1d", "mpeg1video", "mpeg2video"),
        *("mjpeg", "prores", "dnxhd"),
    }
)

# The subset that reads `skip_frame` at each packet. (libdav1d reads it once, when it opens.)
SKIPPING = frozenset({"h264", "hevc", "mpeg4", "vp9"})

# The subset with B-frames, which are shown before frames that were decoded earlier.
REORDERING = frozenset({"h264", "hevc", "mpeg4"})

# Decoders that refer to earlier frames and mark the key frames.
KEYED = frozenset(
    {
        *("h264", "hevc", "mpeg4", "vp8", "vp9", "libdav1d", "mpeg1video", "mpeg2video"),
        *("h263", "flv", "wmv1", "wmv2", "msmpeg4", "msmpeg4v2", "theora", "vc1", "wmv3"),
    }
)

# Decoders of bitstreams whose only long runs of zero bytes are a packet's padding.
WITHOUT_ZEROS = frozenset(
    {
        *("h264", "hevc", "mpeg4", "vp8", "vp9", "libdav1d", "mpeg1video", "mpeg2video"),
        *("h263", "flv", "wmv1", "wmv2", "msmpeg4", "msmpeg4v2", "vc1", "wmv3"),
    }
)

# Names of packed RGB formats with fewer than 8 bits per channel. Their conversion to planes makes
# white 248 and swaps the bytes of some, so they are converted to rgb24 first.
FEW_BITS = r"(?:rgb|bgr)(?:4|4_byte|8|444|555|565)(?:le|be)?"

# Demuxers whose packets have correct times and key flags.
_TIMED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts"})

# The subset whose seeks never land after the requested time.
INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})

# Demuxers that find the key frame before a time.
_SEEKING = _TIMED | {"avi"}

# Prefixes of decoder errors that leave the frames intact.
HARMLESS = (
    "mmco:",  # H.264: the stream drops a frame that does not exist
    "number of reference frames",  # H.264: more than the stream states
    "unable to decode APP fields",  # JPEG: camera metadata
)


def ways(container: str, decoder: str) -> tuple[bool, bool]:
    """Return whether decoding may begin at any key frame, and whether it may skip packets.

    >>> ways("matroska,webm", "h264"), ways("avi", "h264"), ways("avi", "cinepak")
    ((True, True), (True, False), (False, False))
    """
    restarts = decoder in _RESTARTING
    return restarts and container in _SEEKING, restarts and container in _TIMED
