"""Noun phrases of a query, found without a parser: those of captions, and words after an article.

The other stage parses captions with spaCy, which this one does not install. The phrases of the
found clips' captions are known, and an English article opens a phrase.
"""

import re
from collections.abc import Iterable

_WORD = re.compile(r"[\w’'-]+")
_OPENING = re.compile("an?|the|one|two|three|four|some|this|that|these|those")
_CLOSING = re.compile(
    f"{_OPENING.pattern}|and|or|but|not?|then|while|when|who|which|where|as|for|it|he|she|they|his"
    "|her|its|is|are|was|were|be|been|being|has|have|had|do|does|did|with|without|in|on|at|by|of|to"
    "|from|into|onto|over|under|above|below|behind|beside|between|through|across|around|near|next"
    "|up|down|off|out"
)
# A word in -ing after a phrase's first word is its verb, except for these.
_NOUN_IN_ING = re.compile(
    ".*thing|ring|earring|king|wing|string|spring|swing|building|ceiling|painting|drawing|railing"
)
_WORDS = 4  # maximum words of a phrase


def nouns_of(text: str, known: Iterable[str], most: int) -> list[str]:
    """Return the noun phrases of a text in the order of its words.

    Args:
      text: the query.
      known: noun phrases of captions. Those in the text are found whatever precedes them.
      most: maximum number of phrases.

    >>> nouns_of("A red ring is rising, and a blue disc", [], 4)
    ['red ring', 'blue disc']
    >>> nouns_of("man playing the red guitar", ["man"], 4)
    ['man', 'red guitar']
    """
    words = [(match[0].casefold(), match.start(), match.end()) for match in _WORD.finditer(text)]
    phrases = {tuple(_WORD.findall(phrase.casefold())) for phrase in known}
    longest = max(map(len, phrases), default=0)
    found: list[str] = []
    place = 0
    while place < len(words):
        length = _known_length(words[place:], phrases, longest)
        if not length and place and _OPENING.fullmatch(words[place - 1][0]):
            length = _length_after_article(words[place:], text)
        if length:
            phrase = " ".join(word for word, _, _ in words[place : place + length])
            if phrase not in found:
                found.append(phrase)
        place += length or 1
    return found[:most]


def _known_length(
    words: list[tuple[str, int, int]], phrases: set[tuple[str, ...]], longest: int
) -> int:
    for length in range(min(longest, len(words)), 0, -1):
        if tuple(word for word, _, _ in words[:length]) in phrases:
            return length
    return 0


def _length_after_article(words: list[tuple[str, int, int]], text: str) -> int:
    length = 0
    for word, start, _ in words[:_WORDS]:
        # A comma between two words ends the phrase.
        if length and text[words[length - 1][2] : start].strip():
            break
        verb = word.endswith("ing") and not _NOUN_IN_ING.fullmatch(word)
        if _CLOSING.fullmatch(word) or (length and verb):
            break
        length += 1
    return length
