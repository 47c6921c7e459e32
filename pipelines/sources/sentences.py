"""Videos that have several sentences each: a row a video, with all of them.

A sentence that cannot be used is a row of its own, which is rejected, so that none is lost.
"""

import functools
import io
import itertools
from collections.abc import Callable, Iterator, Mapping

from pipelines.clip_request import ClipRequest, RowError
from pipelines.sources import lines, row
from protos.v1.manifest_pb2 import Reject


def rows(
    name: str, sentences: Mapping[str, list[object]], other: Callable[[str], str]
) -> Iterator[ClipRequest | Reject]:
    """A file's videos in order, each followed by those of its sentences that cannot be used.

    Args:
      name: of the file.
      sentences: of each video, as annotated.
      other: why a video is not of the split that was asked for; empty if it is.
    """
    numbers = itertools.count(1)
    for video, said in sentences.items():
        captions: list[str] = []
        errors: list[tuple[RowError, object]] = []
        for sentence in said:
            try:
                captions.append(row.described(sentence)[0])
            except RowError as error:
                errors.append((error, sentence))
        source_row = f"{name}:{next(numbers)}"
        yield row.clip_or_reject(
            functools.partial(_video, video, captions, other(video), source_row),
            source_row=source_row,
            video_id=video,
            row=video,
        )
        if other(video):
            continue
        for error, sentence in errors:
            source_row = f"{name}:{next(numbers)}"
            yield row.rejected(error, source_row=source_row, video_id=video, row=str(sentence))


def _video(video: str, captions: list[str], other: str, source_row: str) -> ClipRequest:
    if other:
        raise RowError("plan", "other_split", other)
    if not captions:
        raise RowError("plan", "caption_empty", "the video has no sentence that can be used")
    return row.whole_video(row.plain_id(video), captions=captions, source_row=source_row)


def listed(data: bytes) -> dict[str, int]:
    r"""The video ids that a file lists, and where: an id a line, or a CSV with a column video_id.

    Raises:
      RowError: a row is not of that form.

    >>> listed(b"video7010\r\nvideo7011\r\n")
    {'video7010': 1, 'video7011': 2}
    >>> listed(b"key,video_id\nret0,video9770\n")
    {'video9770': 1}
    """
    ids: dict[str, int] = {}
    if "video_id" in header(data):
        for number, (_, fields) in enumerate(lines.table(io.BytesIO(data)), 1):
            ids.setdefault(lines.column(fields, "video_id").strip(), number)
    else:
        for number, line in enumerate(lines.lines(io.BytesIO(data)), 1):
            ids.setdefault(lines.text(line).strip(), number)
    return ids


def header(data: bytes) -> list[str]:
    r"""The fields of a file's first line, if it is UTF-8.

    >>> header(b"key,video_id\nret0,video9770\n")
    ['key', 'video_id']
    """
    for line in lines.lines(io.BytesIO(data)):
        return line.decode(errors="replace").strip().split(",")
    return []


def not_annotated(
    lists: Mapping[str, Mapping[str, int]], sentences: Mapping[str, object]
) -> Iterator[Reject]:
    """Rejects of the videos that a list names and no annotation does."""
    for name, ids in lists.items():
        for video, number in ids.items():
            if video not in sentences:
                error = RowError("plan", "not_annotated", f"no sentence of {video[:100]!r}")
                yield row.rejected(error, source_row=f"{name}:{number}", video_id=video, row=video)


def other_split(lists: Mapping[str, Mapping[str, int]], video: str) -> str:
    """Why a video is not of the split, if there are lists of it and none has the video.

    >>> other_split({"test_list.txt": {"a": 1}}, "b")
    'not in test_list.txt'
    """
    if not lists or any(video in ids for ids in lists.values()):
        return ""
    return f"not in {' or '.join(lists)}"
