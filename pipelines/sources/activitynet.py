"""ActivityNet Captions: train.json, val_1.json and val_2.json, with one entry per video.

    {"v_bXdq2zI1Ms0": {"duration": 73.1, "timestamps": [[0, 10.23], …], "sentences": ["…", …]}}

Segments overlap, and some end after the duration. val_2 annotates val_1's videos a second time.

A window or stride cuts whole videos into windows without captions instead, for moment retrieval.
"""

from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from pipelines.sources import clip_fields, json_object
from pipelines.sources.activitynet_tal import DAY_US, WINDOW_US, windows
from pipelines.sources.clip_request import AnnotationError, ClipRequest, RowError
from pipelines.sources.json_object import Span
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    'a JSON object that maps "v_<YouTube id>" to {"duration", "timestamps", "sentences"}, in '
    "seconds"
)
OPTIONS = ("keep_empty_captions", "paragraphs", "window_us", "stride_us")
SUBSETS = ()


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per sentence, per video for `paragraphs`, or per window of a video.

    Raises:
      AnnotationError: the options ask for both paragraphs and windows, or as `json_object.read`.
    """
    if not options.window_us and not options.stride_us:
        return json_object.read(
            file, name, options, _paragraph if options.paragraphs else _sentences
        )
    if options.paragraphs:
        raise AnnotationError(
            "--paragraphs makes clips of captions, --window clips without: leave one out"
        )
    window_us = options.window_us or WINDOW_US
    cut = partial(_windows, window_us=window_us, stride_us=options.stride_us or window_us)
    return json_object.read(file, name, SourceOptions(keep_empty_captions=True), cut)


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


def _windows(key: str, value: object, *, window_us: int, stride_us: int) -> Iterator[Span]:
    """Yield the windows of a whole video."""
    if not isinstance(value, dict):
        raise RowError("read", "row_columns", "no object with a duration")
    duration_us = clip_fields.microseconds(value.get("duration"), "duration", "s")
    if not 0 < duration_us <= DAY_US:
        raise RowError("plan", "time_invalid", f"a duration of {duration_us} µs, or over a day")
    for start_us, end_us in windows(duration_us, window_us, stride_us):
        yield Span(key.removeprefix("v_"), start_us / 1e6, end_us / 1e6, "")
