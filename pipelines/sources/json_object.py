"""A JSON file that is one object, an entry a video, read entry by entry in constant memory."""

import codecs
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from pipelines.clip_request import AnnotationError, ClipRequest, RowError
from pipelines.sources import json_text, row
from protos.v1.manifest_pb2 import Reject, SourceOptions

_BLOCK_BYTES = 1 << 16
_ENTRY_CHARACTERS = 16 << 20  # a video's entry: those of HowTo100M have up to 200,000


class Span(NamedTuple):
    """A row as annotated: times in seconds, nothing checked."""

    video: str  # YouTube id
    start: object
    end: object
    caption: object


def read(
    file: BinaryIO,
    name: str,
    options: SourceOptions,
    spans: Callable[[str, object], Iterable[Span]],
) -> Iterator[ClipRequest | Reject]:
    """Yield the rows of one file, numbered through all its videos.

    `spans` makes rows of a key and its value; where it raises RowError, the video is one row.

    Raises:
      AnnotationError: from some place on the file is no JSON object, so rows would get lost.
    """
    numbers = itertools.count(1)
    for video, span in _spans(_Entries(file, name), spans):
        source_row = f"{name}:{next(numbers)}"
        try:
            yield _clip(span, source_row, options)
        except RowError as error:
            text = json.dumps(span, ensure_ascii=False) if isinstance(span, Span) else ""
            yield row.rejected(error, source_row=source_row, video_id=video, row=text)


def lists(value: object, *names: str) -> list[list]:
    """Return the lists of a video's entry, whose elements go together.

    Raises:
      RowError: a list is not there, or is not as long as the others: which belong together?

    >>> lists({"start": [0], "text": ["a man sings"]}, "start", "text")
    [[0], ['a man sings']]
    """
    found = [value.get(name) if isinstance(value, dict) else None for name in names]
    values = [each for each in found if isinstance(each, list)]
    if len(values) < len(names):
        wanted = " and ".join(repr(name) for name in names)
        raise RowError("read", "row_columns", f"not the lists {wanted}")
    if len({len(each) for each in values}) > 1:
        told = ", ".join(f"{len(each)} {name}" for name, each in zip(names, values, strict=True))
        raise RowError("read", "list_lengths", told)
    return values


def _spans(
    entries: Iterable[tuple[str, object]], spans: Callable[[str, object], Iterable[Span]]
) -> Iterator[tuple[str, Span | RowError]]:
    """Yield each row with its video; of a video that has no rows, what is wrong with it."""
    for key, value in entries:
        try:
            if isinstance(value, RowError):
                raise value
            for span in spans(key, value):
                yield span.video, span
        except RowError as error:
            video = key.removeprefix("v_")
            yield video, RowError(error.stage, error.reason, f"video {key[:100]!r}: {error}")


class _Entries:
    """The names and values of a file's one object; a name may come twice."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        # Bytes that are no UTF-8 become surrogates: the caption that has them is rejected.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text, self._place, self._ended = "", 0, False
        self._lines = 1  # the line that the text begins in

    def __iter__(self) -> Iterator[tuple[str, object]]:
        self._expect("{")
        if self._next() == "}":
            self._place += 1
        else:
            yield self._entry()
            while self._expect(",}") == ",":
                yield self._entry()
        if self._next():
            raise self._damaged("more text after the object's end")

    def _entry(self) -> tuple[str, object]:
        key = self._value() if self._next() == '"' else None
        if not isinstance(key, str):
            raise self._damaged("no name of a video in quotes")
        self._expect(":")
        self._next()
        return key, self._value()

    def _next(self) -> str:
        """Return the next character that is no white space, without taking it; empty at the end."""
        while True:
            self._place = json_text.skip_space(self._text, self._place)
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more(1):
                return ""

    def _expect(self, characters: str) -> str:
        found = self._next()
        if not found or found not in characters:
            wanted = " or ".join(map(repr, characters))
            raise self._damaged(f"{found!r} where {wanted} should be" if found else "it breaks off")
        self._place += 1
        return found

    def _value(self) -> object:
        """Take the value at the current place; a RowError stands for one that is refused."""
        while True:
            try:
                value, end = json_text.decode(self._text, self._place)
                # A number may go on in what is not read yet.
                if end < len(self._text) or not self._more(1):
                    self._place = end
                    return value
                continue
            except RecursionError:
                raise self._damaged("too many levels of brackets") from None
            except json.JSONDecodeError as error:
                waiting = len(self._text) - self._place
                if waiting > _ENTRY_CHARACTERS:
                    raise self._damaged(
                        f"a value of over {_ENTRY_CHARACTERS:,} characters"
                    ) from None
                what, place = error.msg, error.pos
                before = self._place
                if not self._more(waiting):
                    self._place = place - before + self._place
                    raise self._damaged(what) from None

    def _more(self, characters: int) -> bool:
        """Read on by so many characters or a block, and forget what was taken."""
        self._lines += self._text.count("\n", 0, self._place)
        blocks, size = [self._text[self._place :]], 0
        self._place = 0
        while size < max(1, characters) and not self._ended:
            block = self._file.read(_BLOCK_BYTES)
            self._ended = not block
            text = self._decoder.decode(block, final=self._ended)
            size += len(text)
            blocks.append(text)
        self._text = "".join(blocks)
        return size > 0

    def _damaged(self, why: str) -> AnnotationError:
        line = self._lines + self._text.count("\n", 0, self._place)
        if after := self._text[self._place : self._place + 20]:
            why = f"{why}, before {after!r}"
        return AnnotationError(
            f"{self._name} is no JSON object from line {line} on: {why}: "
            "mend the file or get it anew"
        )


def _clip(span: Span | RowError, source_row: str, options: SourceOptions) -> ClipRequest:
    if isinstance(span, RowError):
        raise span
    return row.clip(
        row.youtube_id(span.video),
        row.microseconds(span.start, "start", "s"),
        row.microseconds(span.end, "end", "s"),
        span.caption,
        source_row=source_row,
        options=options,
    )
