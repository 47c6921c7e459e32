"""Warnings about annotations that are valid but may not be what the user intended."""

from collections.abc import Sequence

# Words on every list of English stop words, which together make up a third of speech.
_STOP_WORDS = {
    "a",
    "and",
    "in",
    "is",
    "it",
    "of",
    "on",
    "that",
    "the",
    "this",
    "to",
    "was",
    "with",
    "you",
}
_WORDS_NEEDED = 200
_MIN_SHARE = 0.02


def cautions(source: str, names: Sequence[str], captions: Sequence[str]) -> list[str]:
    """Return warnings, one line each.

    Args:
      source: a key of SOURCES.
      names: names of the annotation files.
      captions: captions of the first rows.
    """
    found = []
    if source == "activitynet" and any(name.startswith("val_2") for name in names):
        found.append(
            "val_2.json is a second annotation of the videos of val_1.json: use both as one split, "
            "for evaluation only"
        )
    if stop_words_removed(captions):
        found.append(
            "the captions seem to lack stop words, which degrades noun chunks: "
            "use raw captions if available (HowTo100M: raw_caption.json)"
        )
    return found


def stop_words_removed(captions: Sequence[str]) -> bool:
    """Return whether the captions seem to lack English stop words.

    They do if stop words make up less than 2 % of at least 200 words.

    >>> stop_words_removed(["check pic tonight pick bowl"] * 50)
    True
    >>> stop_words_removed(["check out the pic that I am going to pick tonight"] * 50)
    False
    """
    words = [word for caption in captions for word in caption.lower().split()]
    if len(words) < _WORDS_NEEDED or not any(word.isascii() for word in words):
        return False
    return sum(word in _STOP_WORDS for word in words) < _MIN_SHARE * len(words)
