"""MSRVTT-QA: train_qa.json, val_qa.json and test_qa.json, or ClipBERT's and ALPRO's JSON Lines.

    [{"answer": "couch", "category_id": 14, "id": 0, "question": "what …?", "video_id": 6513}]

Video N is MSR-VTT's videoN. JSON Lines contain this name.
"""

from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources import questions
from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = 'a JSON list, or JSON Lines, of {"question", "answer", "video_id": N or "videoN"}'
OPTIONS = ()
SUBSETS = ()


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per video, with all its questions."""
    del options
    return questions.rows(name, file.read(), _video)


def _video(field: object) -> str:
    numbered = isinstance(field, int) and not isinstance(field, bool)
    return f"video{field}" if numbered else questions.named(field)
