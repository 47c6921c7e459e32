"""The report's retrieval examples: captions, and films of the clips found for them."""

import re
from collections.abc import Sequence

import numpy as np

from trainer.evaluation import retrieval
from trainer.inference.encoder import frames_of
from trainer.report import drawing
from trainer.report.context import Subject
from trainer.report.drawing import escape

_QUERIES, _FOUND = 12, 6


def findings(subject: Subject) -> str:
    """Return the HTML of some captions with films of their most similar clips."""
    captions = [text.caption for text in subject.texts]
    similarity = subject.encoder.similarity(captions, subject.clips.clip)
    queries = subject.draw(_QUERIES, purpose=1)
    ranks = retrieval.ranks(similarity)
    shown = {}
    for query in queries:
        found = np.argsort(-similarity[query], kind="stable")[:_FOUND].tolist()
        shown[query] = found if query in found else [*found[:-1], query]
    records = sorted({record for found in shown.values() for record in found})
    frames = frames_of(subject.test, records, subject.run.config)
    films = {
        record: drawing.film(
            frames[place],
            (subject.texts[record].end_us - subject.texts[record].start_us) / 1e6,
            captions[record],
        )
        for place, record in enumerate(records)
    }
    cards = []
    for query in queries:
        rank = ranks[query]
        pictures = "".join(
            _found(
                query,
                record,
                bool(record == query and rank > _FOUND),
                float(similarity[query, record]),
                captions,
                films[record],
            )
            for record in shown[query]
        )
        badge = (
            '<span class="first">rank 1</span>'
            if rank == 1
            else f"<span>rank {rank:g} of {len(captions):,}</span>"
        )
        cards.append(
            f'<div class="card query"><p>“{escape(captions[query])}”{badge}</p>'
            f'<div class="found">{pictures}</div></div>'
        )
    return drawing.section(
        "Retrieved clips",
        f"The {_FOUND} most similar clips for each of {len(queries)} captions, best first, with "
        "their cosine similarities and captions (words that differ from the query are "
        "highlighted). The correct clip has a green frame. If its rank is lower, it is shown last, "
        "set apart.",
        "".join(cards),
        subject.of,
    )


def _found(
    query: int, record: int, later: bool, cosine: float, captions: Sequence[str], film: str
) -> str:
    right = record == query
    kinds = [name for name, holds in (("right", right), ("later", later)) if holds]
    return (
        f'<figure class="{" ".join(kinds)}">{film}<figcaption><strong><span>{cosine:.2f}</span>'
        f"<span>{'✓' if right else ''}</span></strong>"
        f"{differing(captions[record], captions[query])}</figcaption></figure>"
    )


def differing(caption: str, asked: str) -> str:
    """Return a caption as HTML, with words in bold that another caption lacks.

    >>> differing("A red ring.", "A blue ring.")
    'A <b>red</b> ring.'
    """
    known = set(re.findall(r"\w+", asked.lower()))
    parts = re.split(r"(\w+)", caption)
    return "".join(
        f"<b>{escape(part)}</b>"
        if re.fullmatch(r"\w+", part) and part.lower() not in known
        else escape(part)
        for part in parts
    )
