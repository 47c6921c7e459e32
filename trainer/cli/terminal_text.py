"""Untrusted texts, made safe for a terminal."""

from protos.reading import reading


def one_line(text: str) -> str:
    r"""Return a text on one line, without characters that control a terminal.

    >>> one_line("a\x1b[2J red\nring")
    'a[2J red ring'
    """
    return "".join(letter for letter in reading(text)[0] if letter.isprintable())
