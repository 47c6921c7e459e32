"""Videos that questions are asked about: a row a video, with all its questions.

A question that cannot be used is a row of its own, which is rejected, so that none is lost. Where
questions have no ids, as in ALPRO's JSON Lines, these are their places in the file, from 0: by
those `svilm-train evaluate` knows them in the file, too.
"""

import functools
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping

from pipelines.clip_request import ClipRequest, Question, RowError
from pipelines.sources import json_file, lines, row
from protos.v1.manifest_pb2 import Reject

_TEXT_CHARACTERS = 1000  # of a question, or of an answer


def rows(
    name: str, data: bytes, video_of: Callable[[object], str]
) -> Iterator[ClipRequest | Reject]:
    """A file's videos in the order of their first questions; the questions that are none last.

    Args:
      name: of the file.
      data: a JSON list of {"question", "answer", "video_id", "id"}, or JSON Lines of such.
      video_of: a video's id as its file is named, from that of the annotation; may raise RowError.
    """
    numbers = itertools.count(1)
    of_videos: dict[str, list[Question]] = {}
    errors: list[tuple[RowError, str]] = []
    for place, entry in enumerate(_entries(data)):
        try:
            if isinstance(entry, RowError):
                raise entry
            question = _question(entry, place)
            of_videos.setdefault(video_of(entry.get("video_id")), []).append(question)
        except RowError as error:
            text = "" if isinstance(entry, RowError) else json.dumps(entry, ensure_ascii=False)
            errors.append((error, text))
    for video, questions in of_videos.items():
        source_row = f"{name}:{next(numbers)}"
        yield row.clip_or_reject(
            functools.partial(_video, video, questions, source_row),
            source_row=source_row,
            video_id=video,
        )
    for error, text in errors:
        yield row.rejected(error, source_row=f"{name}:{next(numbers)}", row=text)


def named(field: object) -> str:
    """A video's name where the annotation has it, rather than a number.

    Raises:
      RowError: it is no text.
    """
    if not isinstance(field, str):
        raise RowError("plan", "video_id_invalid", f"a video {field!r:.100}")
    return field


def _video(video: str, questions: list[Question], source_row: str) -> ClipRequest:
    return row.whole_video(row.plain_id(video), questions=tuple(questions), source_row=source_row)


def _entries(data: bytes) -> Iterator[dict | RowError]:
    if data.lstrip()[:1] == b"[":
        try:
            entries = json_file.objects({"": json_file.load(data)}, "")
        except RowError as error:
            yield error
            return
        yield from entries
        return
    for line in lines.lines(io.BytesIO(data)):
        try:
            entry = json_file.load(line)
            if not isinstance(entry, dict):
                raise RowError("read", "row_columns", "the line is no JSON object")
            yield entry
        except RowError as error:
            yield error


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
    if not row.is_text(value) or len(value) > _TEXT_CHARACTERS:
        raise RowError("plan", "question_invalid", f"a {what} of {value!r:.100}")
    return value.strip()


def type_of(question: str) -> str:
    """A question's type, by which accuracies are told: its first word.

    >>> type_of("What is chewing on a nut?")
    'what'
    """
    return question.split()[0].lower().rstrip("?,")
