"""What a user should know of annotations that can be built from, but may not be what was meant."""

from collections.abc import Sequence

# The words that lists of English stop words all have and that make up a third of speech.
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
_LEAST_SHARE = 0.02


def cautions(source: str, names: Sequence[str], captions: Sequence[str]) -> list[str]:
    """One line each.

    Args:
      source: a name of SOURCES.
      names: of the annotation files.
      captions: of the first rows.
    """
    told = []
    if source == "activitynet" and any(name.startswith("val_2") for name in names):
        told.append(
            "val_2.json annotates the videos of val_1.json a second time: take both as one split, "
            "for evaluation, and never val_2 as a split of its own"
        )
    if stop_words_removed(captions):
        told.append(
            "the captions seem to have had their stop words removed, which spoils noun chunks: "
            "use the raw ones where there are any (HowTo100M: raw_caption.json)"
        )
    return told


def stop_words_removed(captions: Sequence[str]) -> bool:
    """Whether the most common words of English are missing from a few hundred words.

    >>> stop_words_removed(["check pic tonight pick bowl"] * 50)
    True
    >>> stop_words_removed(["check out the pic that I am going to pick tonight"] * 50)
    False
    """
    words = [word for caption in captions for word in caption.lower().split()]
    if len(words) < _WORDS_NEEDED or not any(word.isascii() for word in words):
        return False
    return sum(word in _STOP_WORDS for word in words) < _LEAST_SHARE * len(words)
