"""ActivityNet Captions: train.json, val_1.json and val_2.json, with one entry per video.

    {"v_bXdq2zI1Ms0": {"duration": 73.1, "timestamps": [[0, 10.23], …], "sentences": ["…", …]}}

Segments overlap, and some end after the duration. val_2 annotates val_1's videos a second time.
"""

from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources import json_object
from pipelines.sources.clip_request import ClipRequest, RowError
from pipelines.sources.json_object import Span
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    'a JSON object that maps "v_<YouTube id>" to {"duration", "timestamps", "sentences"}, in '
    "seconds"
)
OPTIONS = ("keep_empty_captions", "paragraphs")
SUBSETS = ()


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per sentence, or per video for `paragraphs`, in the file's order."""
    spans = _paragraph if options.paragraphs else _sentences
    return json_object.read(file, name, options, spans)


def _sentences(key: str, value: object) -> Iterator[Span]:
    times, sentences = json_object.lists(value, "timestamps", "sentences")
    for time, sentence in zip(times, sentences, strict=True):
        start, end = time if isinstance(time, list) and len(time) == 2 else (time, None)
        yield Span(key.removeprefix("v_"), start, end, sentence)


def _paragraph(key: str, value: object) -> Iterator[Span]:
    """Yield the whole video with its sentences joined in the annotator's order."""
    _, sentences = json_object.lists(value, "timestamps", "sentences")
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise RowError("plan", "caption_invalid", "a sentence that is no text")
    assert isinstance(value, dict)
    caption = " ".join(sentence.strip() for sentence in sentences)
    yield Span(key.removeprefix("v_"), 0, value.get("duration"), caption)
