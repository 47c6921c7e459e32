"""Rows of data sets with several sentences per video: one row per video, with all its sentences.

An unusable sentence becomes a reject of its own, so that none is lost.
"""

import functools
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pipelines.sources import clip_fields, lines
from pipelines.sources.clip_request import AnnotationError, ClipRequest, RowError
from protos.v1.manifest_pb2 import Reject


class Sentence(NamedTuple):
    """A sentence as annotated, and its line number, or 0 if the file has no line per sentence."""

    text: object
    line: int = 0


def rows(
    name: str,
    sentences: Mapping[str, list[Sentence]],
    other: Callable[[str], str],
    nameless: Sequence[Mapping[str, object]] = (),
) -> Iterator[ClipRequest | Reject]:
    """Yield a file's videos in order, each followed by the rejects of its unusable sentences.

    Args:
      name: name of the file.
      sentences: each video's sentences.
      other: returns why a video is not in the requested split, or an empty text.
      nameless: entries of a JSON file that name no video, each rejected after all videos.
    """
    numbers = itertools.count(1)
    for video, said in sentences.items():
        captions: list[str] = []
        errors: list[tuple[RowError, Sentence]] = []
        line = cut_from = 0
        for sentence in said:
            try:
                caption, length = clip_fields.described(sentence.text)
                cut_from = cut_from if captions else length
                captions.append(caption)
                line = line or sentence.line
            except RowError as error:
                errors.append((error, sentence))
        reason = other(video)
        if captions or reason or not errors or not errors[0][1].line:
            source_row = f"{name}:{line or (said and said[0].line) or next(numbers)}"
            yield clip_fields.clip_or_reject(
                functools.partial(_video, video, captions, cut_from, reason, source_row),
                source_row=source_row,
                video_id=video,
                row=video,
            )
        if reason:
            continue
        for error, sentence in errors:
            source_row = f"{name}:{sentence.line or next(numbers)}"
            yield clip_fields.rejected(
                error, source_row=source_row, video_id=video, row=str(sentence.text)
            )
    for entry in nameless:
        text = json.dumps(entry, ensure_ascii=False)
        error = RowError("plan", "video_id_invalid", "the entry names no video")
        yield clip_fields.rejected(error, source_row=f"{name}:{next(numbers)}", row=text)


def _video(
    video: str, captions: list[str], cut_from: int, other: str, source_row: str
) -> ClipRequest:
    if other:
        raise RowError("plan", "other_split", other)
    if not captions:
        raise RowError("plan", "caption_empty", "the video has no sentence")
    return clip_fields.whole_video(
        clip_fields.plain_id(video),
        captions=captions,
        caption_cut_from=cut_from,
        source_row=source_row,
    )


Listed = Mapping[str, Sequence[int]]
"""Video ids of a split list, with their line numbers; an empty id marks lines without a video."""

Splits = dict[str, list[str]]
"""The splits that files assign to a video: more than one if the files contradict each other."""


def keep_split(splits: Splits, video: str, split: str) -> None:
    """Add a file's split of a video to the known splits."""
    said = splits.setdefault(video, [])
    if split not in said:
        said.append(split)


def not_of_split(splits: Splits, video: str, split: str) -> str:
    """Return why a video is not in a split, or an empty text.

    A video in two splits counts as being in neither.

    >>> not_of_split({"a": ["train"]}, "a", "test")
    'of train, not test'
    >>> not_of_split({"a": ["train", "test"]}, "a", "test")
    'of train and of test, not of test alone'
    """
    said = splits.get(video, ["no split"])
    if len(said) > 1:
        return f"of {' and of '.join(said)}, not of {split} alone"
    return "" if said == [split] else f"of {said[0]}, not {split}"


def listed(data: bytes, name: str) -> dict[str, list[int]]:
    r"""Return the video ids that a file lists, and the numbers of their lines.

    The file has one id per line, or is a CSV with a column video_id.

    Raises:
      AnnotationError: a line is invalid, so its video could be assigned to the wrong split.

    >>> listed(b"video7010\r\nvideo7011\r\n", "a.txt")
    {'video7010': [1], 'video7011': [2]}
    >>> listed(b"key,video_id\nret0,video9770\n", "a.csv")
    {'video9770': [2]}
    """
    ids: dict[str, list[int]] = {}
    number = 1
    try:
        if "video_id" in header(data):
            for number, _, fields in lines.table(io.BytesIO(data)):
                ids.setdefault(_listed_id(lines.column(fields, "video_id")), []).append(number)
        else:
            for number, line in lines.numbered(io.BytesIO(data)):
                ids.setdefault(_listed_id(lines.text(line)), []).append(number)
    except RowError as error:
        raise AnnotationError(f"{name}:{number}: {error}: correct the line") from None
    return ids


def _listed_id(text: str) -> str:
    text = text.strip()
    if len(text) > clip_fields.ID_CHARACTERS or '"' in text:  # The file has another format.
        raise RowError("plan", "video_id_invalid", f"{text[:100]!r} is no video id")
    return text


def header(data: bytes) -> list[str]:
    r"""Return the fields of a file's first line, with invalid UTF-8 replaced.

    >>> header(b"key,video_id\nret0,video9770\n")
    ['key', 'video_id']
    """
    for _, line in lines.numbered(io.BytesIO(data)):
        return line.decode(errors="replace").strip().split(",")
    return []


def not_annotated(lists: Mapping[str, Listed], sentences: Mapping[str, object]) -> Iterator[Reject]:
    """Yield rejects of a list's lines that name no video, or a video without annotations."""
    for name, ids in lists.items():
        lost = {number: video for video in ids if video not in sentences for number in ids[video]}
        for number, video in sorted(lost.items()):
            error = RowError("plan", "not_annotated", f"no sentence of {video[:100]!r}")
            if not video:
                error = RowError("plan", "video_id_invalid", "the line names no video")
            yield clip_fields.rejected(
                error, source_row=f"{name}:{number}", video_id=video, row=video
            )


def other_split(lists: Mapping[str, Listed], video: str) -> str:
    """Return why a video is not in the split: split lists exist, and none contains the video.

    Return an empty text otherwise.

    >>> other_split({"test_list.txt": {"a": [1]}}, "b")
    'not in test_list.txt'
    """
    if not lists or any(video in ids for ids in lists.values()):
        return ""
    return f"not in {' or '.join(lists)}"
