"""Decoders and demuxers for which a part of a file gives the same pixels as the whole.

What is not listed is decoded from the beginning of the file, without hints. The matrix of films in
tests/pipelines/decoding/test_matrix.py proves the lists: a decoder may ignore a hint or
remember it, and a container may state wrong times or key frames.
"""

# Decoders that need nothing from before a key frame.
_RESTARTING = frozenset(
    {
        *("h264", "hevc", "mpeg4", "vp8", "vp9", "libdav1d", "mpeg1video", "mpeg2video"),
        *("mjpeg", "prores", "dnxhd"),
    }
)

# Of these, those that heed `skip_frame` at each packet. (libdav1d reads it when it is opened.)
SKIPPING = frozenset({"h264", "hevc", "mpeg4", "vp9"})

# Of these, those that show B-frames before frames that were decoded earlier.
REORDERING = frozenset({"h264", "hevc", "mpeg4"})

# Decoders that refer to earlier frames, and mark the key frames.
KEYED = frozenset(
    {
        *("h264", "hevc", "mpeg4", "vp8", "vp9", "libdav1d", "mpeg1video", "mpeg2video"),
        *("h263", "flv", "wmv1", "wmv2", "msmpeg4", "msmpeg4v2", "theora", "vc1", "wmv3"),
    }
)

# Decoders of codes that have no long runs of zero bytes but where a packet is filled up.
WITHOUT_ZEROS = frozenset(
    {
        *("h264", "hevc", "mpeg4", "vp8", "vp9", "libdav1d", "mpeg1video", "mpeg2video"),
        *("h263", "flv", "wmv1", "wmv2", "msmpeg4", "msmpeg4v2", "vc1", "wmv3"),
    }
)

# Demuxers whose packets have right times and key flags.
_TIMED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts"})

# Of these, those that go to a place that is not after the time.
INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})

# Demuxers that find the key frame before a time.
_SEEKING = _TIMED | {"avi"}

# Errors of decoders whose frames are whole all the same: prefixes of messages.
HARMLESS = (
    "mmco:",  # H.264: a frame is to be dropped that is not there
    "number of reference frames",  # H.264: more than the stream states
    "unable to decode APP fields",  # JPEG: a note of the camera's
)


def ways(container: str, decoder: str) -> tuple[bool, bool]:
    """Returns whether decoding may begin at any key frame, and whether packets may be left out.

    >>> ways("matroska,webm", "h264"), ways("avi", "h264"), ways("avi", "cinepak")
    ((True, True), (True, False), (False, False))
    """
    restarts = decoder in _RESTARTING
    return restarts and container in _SEEKING, restarts and container in _TIMED
