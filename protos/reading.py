"""The text that a reader sees, without the white space and invisible characters of web pages.

Noun chunks are found in this text, and prompts are made of it. A record keeps the original caption.
BERT's tokenizer ignores these characters, too. HTML entities and combining accents are kept.
"""

import re

# Control characters other than white space, soft hyphens, bidirectional marks, zero-width spaces
# and byte order marks.
_INVISIBLE = r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
_INVISIBLE += r"\u2060-\u206f\ufeff"
_JOINERS = r"[\u200c\u200d]+"  # They are kept in other scripts and in emoji.
_UNREAD = re.compile(rf"[{_INVISIBLE}]|(?<=[\x00-\x7f]){_JOINERS}|{_JOINERS}(?=[\x00-\x7f])")
# Matches every text that differs from its reading.
_UNEVEN = re.compile(rf"^\s|\s$|\s\s|[^\S ]|[{_INVISIBLE}\u200c\u200d]")


def reading(text: str) -> tuple[str, list[int] | range]:
    r"""Return a text as a reader sees it, and the index in `text` of each of its characters.

    A run of white space becomes one blank, or nothing at either end. Invisible characters are left
    out.

    >>> reading("a\u00a0 man")
    ('a man', [0, 1, 3, 4, 5])
    >>> reading("sand\u00adwich")[0]
    'sandwich'
    """
    if not _UNEVEN.search(text):
        return text, range(len(text))
    unread = {place for match in _UNREAD.finditer(text) for place in range(*match.span())}
    characters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        blank = character.isspace()
        if place in unread or (blank and (not characters or characters[-1] == " ")):
            continue
        characters.append(" " if blank else character)
        places.append(place)
    if characters and characters[-1] == " ":
        del characters[-1], places[-1]
    return "".join(characters), places
