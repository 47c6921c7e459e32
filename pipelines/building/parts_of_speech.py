"""Parts of speech from a pipeline's attribute ruler, cached by kind of token.

The ruler takes a quarter of a caption's time because it matches 179 patterns at each token. In the
known English pipelines, three attributes decide whether a token is a noun, a proper noun or a
pronoun: its word, tag and dependency. Only one pattern of two tokens sets a part of speech. It
makes "is" after "there" a verb instead of an auxiliary.
"""

from typing import Any

_MAX_KINDS = 1 << 20  # maximum number of cached kinds, about 200 MB

_Kind = tuple[int, int, int]  # orth, tag, dep


class PartsOfSpeech:
    """Setter of the parts of speech of parsed docs, with a cache by kind of token."""

    def __init__(self, nlp: Any) -> None:
        """Disable the attribute ruler in the pipeline `nlp`, so that only this object calls it."""
        self._vocab, self._ruler = nlp.vocab, nlp.get_pipe("attribute_ruler")
        nlp.disable_pipe("attribute_ruler")
        self._known: dict[_Kind, int] = {}

    def set(self, doc: Any) -> None:
        """Set each token's part of speech in a parsed doc."""
        kinds: list[_Kind] = [(token.orth, token.tag, token.dep) for token in doc]
        known = self._known
        if new := {kind for kind in kinds if kind not in known}:
            if len(known) > _MAX_KINDS:
                known.clear()
                new = set(kinds)
            self._ask(sorted(new))
        for token, kind in zip(doc, kinds, strict=True):
            token.pos = known[kind]

    def _ask(self, kinds: list[_Kind]) -> None:
        from spacy.tokens import Doc

        text = self._vocab.strings
        for kind in kinds:
            word, tag, dep = (text[number] for number in kind)
            one = Doc(self._vocab, words=[word], tags=[tag], deps=[dep], heads=[0])
            self._known[kind] = self._ruler(one)[0].pos
