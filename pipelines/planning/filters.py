"""Filters that turn unwanted rows into rejects, all off by default."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from pipelines.decoding.spans import TO_THE_END
from pipelines.sources import annotation_file, lines
from pipelines.sources.clip_request import ClipRequest, reject
from protos.v1.manifest_pb2 import Filters, Reject
from protos.video_id import video_key


def read_ids(paths: Sequence[str]) -> frozenset[str]:
    """Return the video ids in files with one id a line.

    White space around an id and empty lines are ignored.

    Raises:
      OSError: a file cannot be read.
      RowError: a line is not UTF-8.
    """
    ids = set()
    for path in paths:
        with annotation_file.open_to_read(path) as file:
            ids |= {lines.text(line).strip() for _, line in lines.numbered(file)}
    return frozenset(ids)


def ids_sha256(ids: frozenset[str]) -> str:
    """Return the hex sha256 of the sorted ids, or an empty string if there are no ids.

    >>> ids_sha256(frozenset())
    ''
    """
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest() if ids else ""


def keep(
    row: ClipRequest | Reject, filters: Filters, excluded: frozenset[str]
) -> ClipRequest | Reject:
    """Return the row, or a reject for the first filter that drops it.

    Args:
      row: a row, or a reject, which is returned unchanged.
      filters: the filters of the build.
      excluded: the `video_key` of each video to exclude.
    """
    if isinstance(row, Reject) or not (dropped := _dropped(row, filters, excluded)):
        return row
    reason, message = dropped
    return reject(
        "plan",
        reason,
        message,
        source_row=row.source_row,
        video_id=row.video_id,
        row="" if reason == "excluded" else row.caption,  # An exclusion may be a takedown.
    )


def unmatched(excluded: frozenset[str], video_ids: Iterable[str]) -> list[str]:
    """Return the excluded videos that none of `video_ids` denotes, one spelling of each, sorted.

    >>> unmatched(frozenset({"v_a", "b.mp4", "b"}), ["a", "b.webm"])
    ['v_a']
    """
    by_key = {video_key(spelling): spelling for spelling in sorted(excluded)}
    for video_id in video_ids:
        by_key.pop(video_key(video_id), None)
    return sorted(by_key.values())


def ascii_share(text: str) -> float:
    """Return the share of ASCII among a text's non-space characters, or 1 if it has none.

    >>> ascii_share("ein Bär")
    0.8333333333333334
    """
    characters = "".join(text.split())
    return sum(map(str.isascii, characters)) / len(characters) if characters else 1.0


def motion(frames: np.ndarray) -> float:
    """Return the mean absolute difference of pixel values between consecutive frames: 0 to 255.

    Args:
      frames: uint8 [T, height, width, 3], with T of 2 or more.

    >>> motion(np.array([[[[7, 7, 10]]], [[[7, 7, 4]]]], np.uint8))
    2.0
    """
    differences = (
        int(np.abs(after.astype(np.int16) - before).sum(dtype=np.int64))
        for before, after in itertools.pairwise(frames)
    )
    return sum(differences) / frames[1:].size


def dropped_by_length(length_us: int, filters: Filters) -> tuple[str, str] | None:
    """Return the reason code and message of the filter that drops this length, if any.

    >>> dropped_by_length(900_000, Filters(min_clip_us=1_000_000))
    ('clip_too_short', '900000 µs where 1000000 are wanted')
    """
    if length_us < filters.min_clip_us:
        return "clip_too_short", f"{length_us} µs where {filters.min_clip_us} are wanted"
    if 0 < filters.max_clip_us < length_us:
        return "clip_too_long", f"{length_us} µs where {filters.max_clip_us} are allowed"
    return None


def _dropped(
    row: ClipRequest, filters: Filters, excluded: frozenset[str]
) -> tuple[str, str] | None:
    """Return the reason code and message of the first filter that drops a row, if any."""
    if excluded and video_key(row.video_id) in excluded:
        return "excluded", "the video is on the exclusion list"
    if row.end_us != TO_THE_END:
        dropped = dropped_by_length(row.end_us - row.start_us, filters)
        if dropped:
            return dropped
    words = len(row.caption.split())
    if words < filters.min_caption_words:
        return "caption_too_short", f"{words} words where {filters.min_caption_words} are wanted"
    if 0 < filters.max_caption_words < words:
        return "caption_too_long", f"{words} words where {filters.max_caption_words} are allowed"
    if filters.min_ascii_share and (share := ascii_share(row.caption)) < filters.min_ascii_share:
        return "caption_not_ascii", f"{share:.2f} of it is ASCII, {filters.min_ascii_share} wanted"
    return None
