"""Spellings of a video's id, with and without its file's extension."""

import unicodedata

# The first extension with a file is used. Lower case has priority, then upper, then mixed case.
EXTENSIONS = (
    *("mp4", "mkv", "webm", "m4v", "mov", "avi"),
    *("ts", "mts", "m2ts", "3gp", "3g2", "mpg", "mpeg", "ogv", "flv", "wmv", "asf"),
)


def split_extension(video_id: str) -> tuple[str, str]:
    """Split a video's id or path into its stem and its video file extension.

    >>> split_extension("bikes.MP4"), split_extension("v1.2")
    (('bikes', 'MP4'), ('v1.2', ''))
    """
    stem, _, extension = video_id.rpartition(".")
    return (stem, extension) if stem and extension.lower() in EXTENSIONS else (video_id, "")


def video_key(video_id: str) -> str:
    r"""Return a key that is equal for all spellings of a video's id.

    Spellings differ in the file's extension or in their Unicode normalization. All extensions are
    removed, because a file "a.mp4.mp4" is found as "a.mp4", too.

    >>> video_key("bikes.MP4"), video_key("bikes.mp4.mp4"), video_key("v1.2")
    ('bikes', 'bikes', 'v1.2')
    >>> video_key("Cafe\u0301") == video_key("Caf\u00e9.mkv")
    True
    """
    stem, extension = split_extension(video_id)
    while extension:
        stem, extension = split_extension(stem)
    return unicodedata.normalize("NFC", stem)
