"""Marks of videos in seen.bin, the record of the videos that a run may have seen.

RUN/seen.bin has sorted marks of 8 bytes each, little-endian: one of each video's id, and one of its
file. A data set gives an id to one video. Ids of different data sets are not compared, as `video7`
is in many. Ids of YouTube's form are the exception: 11 characters in upper and lower case are
YouTube's in all data sets. Users' own tables all belong to the data set "generic". Ids of two
tables count only if the file of either is unknown.
"""

import hashlib
import json
import re

MARK_BYTES = 8
# Data set of any table whose columns are named.
TABLES = "generic"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_YOUTUBE = re.compile(r"(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9_-]{11}")


def mark_of_id(dataset: str, video_id: str, *, known: bool) -> int:
    """Return the first 8 bytes of a sha256 as an integer.

    Args:
      dataset: the snapshot's data set.
      video_id: id of the video within it.
      known: True if the video's file is known, which matters only to tables.

    >>> first = mark_of_id("howto100m", "dQw4w9WgXcQ", known=True)
    >>> first == mark_of_id("activitynet", "dQw4w9WgXcQ", known=False)
    True
    >>> mark_of_id("msrvtt", "video7", known=True) == mark_of_id("shapes", "video7", known=True)
    False
    >>> mark_of_id("generic", "7", known=True) == mark_of_id("generic", "7", known=False)
    False
    """
    of = f"dataset {dataset}"
    if _YOUTUBE.fullmatch(video_id):
        of = "youtube"
    elif dataset == TABLES and known:
        of += ", file known"
    return int.from_bytes(hashlib.sha256(json.dumps([of, video_id]).encode()).digest()[:MARK_BYTES])


def marks_to_find(dataset: str, video_id: str, sha256: str) -> tuple[int, int]:
    """Return the id marks of a video to look up in a seen.bin.

    Args:
      dataset: the snapshot's data set.
      video_id: id of the video within it.
      sha256: that of its file, in hex; empty if unknown.
    """
    # A known file differs from that of an equal id whose file was known.
    return (
        mark_of_id(dataset, video_id, known=False),
        mark_of_id(dataset, video_id, known=not sha256),
    )


def mark_of_file(sha256: str) -> int:
    """Return the mark of a video's file, 0 if its sha256 is unknown: a text that is no such hash.

    >>> mark_of_file("00000000000000ff" + 48 * "0"), mark_of_file("")
    (255, 0)
    """
    return int(sha256[: 2 * MARK_BYTES], 16) if _SHA256.fullmatch(sha256) else 0
