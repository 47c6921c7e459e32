"""A streaming reader of JSON texts of any length, in constant memory."""

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources import json_text

_BLOCK_BYTES = 1 << 16
_VALUE_CHARACTERS = 16 << 20  # maximum length of a value; HowTo100M's have up to 200,000


class StreamError(ValueError):
    """An error for text that is not JSON of the expected form from some line on."""


class JsonStream:
    """A reader of a text's values in order, whose methods raise StreamError for invalid text."""

    def __init__(self, file: BinaryIO) -> None:
        """Read from a file, with invalid UTF-8 decoded to surrogates."""
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text, self._place, self._ended = "", 0, False
        self._lines = 1  # number of the line in which `_text` begins

    def names(self) -> Iterator[str]:
        """Yield an object's names, including repeated names.

        The caller must read the value after each name.
        """
        self._expect("{")
        if self._next() == "}":
            self._place += 1
            return
        while True:
            name = self.value() if self._next() == '"' else None
            if not isinstance(name, str):
                raise self._error("no name in quotes")
            self._expect(":")
            yield name
            if self._expect(",}") == "}":
                return

    def items(self) -> Iterator[object]:
        """Yield a list's values, as `value` returns them."""
        self._expect("[")
        if self._next() == "]":
            self._place += 1
            return
        while True:
            yield self.value()
            if self._expect(",]") == "]":
                return

    def value(self) -> object:
        """Return the next value, or the RowError that `json_text.decode` returns for it."""
        self._next()
        while True:
            try:
                value, end = json_text.decode(self._text, self._place)
            except RecursionError:
                raise self._error("too many levels of brackets") from None
            except json.JSONDecodeError as error:
                waiting = len(self._text) - self._place
                if waiting > _VALUE_CHARACTERS:
                    raise self._error(f"a value of over {_VALUE_CHARACTERS:,} characters") from None
                why, after = error.msg, error.pos - self._place
                if not self._more(waiting):
                    self._place += after
                    raise self._error(why) from None
                continue
            if end == len(self._text):  # A number may continue in the next block.
                length = end - self._place
                if self._more(1):
                    continue
                end = self._place + length
            self._place = end
            return value

    def end(self) -> None:
        """Check that the text ends here."""
        if self._next():
            raise self._error("more text after the end")

    def _next(self) -> str:
        """Peek at the next character that is not white space, and return "" at the end."""
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
            raise self._error(f"{found!r} where {wanted} should be" if found else "it breaks off")
        self._place += 1
        return found

    def _more(self, characters: int) -> bool:
        """Read at least this many further characters, and drop the consumed text.

        Return whether any text was read.
        """
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

    def _error(self, why: str) -> StreamError:
        line = self._lines + self._text.count("\n", 0, self._place)
        if after := self._text[self._place : self._place + 20]:
            why = f"{why}, before {after!r}"
        return StreamError(f"line {line}: {why}")
