"""A reader of question files that yields one row per video, with all its questions.

An unusable question becomes a reject of its own, so that none is lost. Questions without ids, as
in ALPRO's JSON Lines, get their index in the file, from 0, as their id. `svilm-train evaluate`
assigns the same ids to the questions of the file.
"""

import functools
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping

from pipelines.sources import clip_fields, json_file, json_text, lines
from pipelines.sources.clip_request import (
    AnnotationError,
    ClipRequest,
    Question,
    RowError,
    row_order,
)
from protos.v1.manifest_pb2 import Reject

_TEXT_CHARACTERS = 1000  # maximum length of a question or an answer


def rows(
    name: str, data: bytes, video_of: Callable[[object], str]
) -> Iterator[ClipRequest | Reject]:
    """Yield a file's videos and its unusable questions, in order of their first lines.

    In a JSON list, a question's index from 1 replaces its line number.

    Args:
      name: name of the file.
      data: a JSON list of {"question", "answer", "video_id", "id"}, or JSON Lines of such objects.
      video_of: maps a video id in the annotation to the name of the video's file, or raises
        RowError.

    Raises:
      AnnotationError: the file is neither a JSON list nor JSON Lines.
    """
    of_videos: dict[str, tuple[str, list[Question]]] = {}
    rejects: list[Reject] = []
    for place, (number, text, entry) in enumerate(_entries(data, name)):
        source_row = f"{name}:{number}"
        try:
            if isinstance(entry, RowError):
                raise entry
            question = _question(entry, place)
            video = video_of(entry.get("video_id"))
            of_videos.setdefault(video, (source_row, []))[1].append(question)
        except RowError as error:
            text = text or json.dumps(entry, ensure_ascii=False)
            video = _owner(entry, video_of)
            rejects.append(
                clip_fields.rejected(error, source_row=source_row, video_id=video, row=text)
            )
    videos = [
        clip_fields.clip_or_reject(
            functools.partial(_video, video, questions, source_row),
            source_row=source_row,
            video_id=video,
        )
        for video, (source_row, questions) in of_videos.items()
    ]
    yield from sorted([*videos, *rejects], key=lambda row: row_order(row.source_row))


def _owner(entry: Mapping[str, object] | RowError, video_of: Callable[[object], str]) -> str:
    """Return the video of an unusable question, or an empty text if it has none."""
    try:
        return "" if isinstance(entry, RowError) else video_of(entry.get("video_id"))
    except RowError:
        return ""


def named(field: object) -> str:
    """Return a video's name from an annotation that has names instead of numbers.

    Raises:
      RowError: the name is empty or not a text.
    """
    if not isinstance(field, str) or not field:
        raise RowError("plan", "video_id_invalid", f"a video {field!r:.100}")
    return field


def _video(video: str, questions: list[Question], source_row: str) -> ClipRequest:
    return clip_fields.whole_video(
        clip_fields.plain_id(video), questions=tuple(questions), source_row=source_row
    )


def _entries(data: bytes, name: str) -> Iterator[tuple[int, str, dict | RowError]]:
    """Yield each entry's line number or index, the beginning of its line, and its object."""
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        entries = json_file.load(data, name)
        assert isinstance(entries, list)
        for number, entry in enumerate(entries, 1):
            if isinstance(entry, dict):
                yield number, "", entry
            else:
                message = f"{entry!r:.100} is no object"
                yield number, message, RowError("read", "row_columns", message)
        return
    if not json_file.is_json(data):
        raise AnnotationError(
            f"{name} is neither a JSON list nor JSON Lines: check that it is the right file"
        )
    single = not re.search(rb"[\r\n]", data.strip())
    for number, line in lines.numbered(io.BytesIO(data)):
        try:
            yield number, lines.excerpt(line), json_text.object_of(lines.text(line, quoted=True))
        except json_text.SeveralValuesError:  # The file may be a list without its first bracket.
            raise AnnotationError(
                f"{name}:{number}: several values on a line: repair it or download it again"
            ) from None
        except RowError as error:
            if single:  # A damaged list on one line has many entries.
                raise AnnotationError(
                    f"{name} is neither a JSON list nor JSON Lines ({error}): repair it or "
                    "download it again"
                ) from None
            yield number, lines.excerpt(line), error


def _question(entry: Mapping[str, object], place: int) -> Question:
    if "question" not in entry:
        raise RowError("read", "row_columns", "no 'question'")
    number = entry.get("id", entry.get("question_id", place))
    name = str(number) if type(number) is int else number
    text, answer = (
        _text(what, value)
        for what, value in (("question", entry["question"]), ("answer", entry.get("answer", "")))
    )
    if not text:
        raise RowError("plan", "question_invalid", "a question without text")
    return Question(_text("question's id", name), text, answer, type_of(text))


def _text(what: str, value: object) -> str:
    if not clip_fields.is_text(value) or len(value) > _TEXT_CHARACTERS:
        raise RowError("plan", "question_invalid", f"a {what} of {value!r:.100}")
    return value.strip()


def type_of(question: str) -> str:
    """Return a question's type, its first word, by which accuracies are reported.

    >>> type_of("What is chewing on a nut?")
    'what'
    """
    return question.split()[0].lower().rstrip("?,")
