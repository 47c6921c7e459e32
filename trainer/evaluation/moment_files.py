"""Moment retrieval's files: ActivityNet Captions' ground truth, and predicted spans.

Ground truth is val_1.json or val_2.json as published, of which 2D-TAN and later work take the
first to choose a model and the second to test it,

  {"v_bXdq2zI1Ms0": {"duration": 73.1, "timestamps": [[0, 10.23], …], "sentences": ["…", …]}, …}

2D-TAN leaves out a segment that does not end after it starts, and ends the others with the video.
So does this module. Predictions are QVHighlights' JSON Lines (or an array of the same objects),
without `qid`,

  {"vid": "v_bXdq2zI1Ms0", "query": "…", "pred_relevant_windows": [[start, end, score], …]}

one line per sentence, in any order. A sentence that a video has several times has as many lines,
in the ground truth's order. Spans are ranked by score; of equal scores the earlier comes first. A
sentence without a span counts as missed. Times are in seconds. Ids may lack `v_`.
"""

import collections
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float

from trainer.evaluation import moment_recall
from trainer.evaluation.moment_recall import RANKS, THRESHOLDS, Recalls
from trainer.evaluation.prediction_files import (
    Path,
    Row,
    TaskFileError,
    json_number,
    read_json,
    read_objects,
    shorten,
    text_of,
)
from trainer.evaluation.segment_files import as_list, as_object

_ROUNDING = 0.01  # seconds that a span may exceed its video: published durations are rounded


class Query(NamedTuple):
    """A sentence and its segment of a video, in seconds."""

    video_id: str  # without v_
    text: str
    start: float
    end: float
    duration: float  # of the video


class Span(NamedTuple):
    """A predicted span of a video, in seconds."""

    start: float
    end: float
    score: float


class Truth(NamedTuple):
    """The queries of a ground-truth file."""

    name: str  # "val_1"
    queries: list[Query]
    dropped: int  # segments without a length


class Moments(TypedDict):
    """The metrics of predicted spans, beside those of a prior and of a random encoder."""

    truth: str
    queries: int
    videos: int
    dropped: int  # segments of the ground truth without a length
    missed: int  # queries without a span
    found: Recalls
    prior: Recalls
    random_encoder: Recalls | None  # None for a file of predictions


def read_truth(path: Path) -> Truth:
    """Read the queries of ActivityNet Captions' val_1.json, val_2.json or a file like them.

    Raises:
      TaskFileError: the file has another format, a video twice, or no query.
    """
    queries, dropped, names = [], 0, set()
    for key, value in as_object(str(path), read_json(path)).items():
        where = f"{path}, video {shorten(key)}"
        entry, video_id = as_object(where, value), key.removeprefix("v_")
        if video_id in names:
            raise TaskFileError(f"{where}: the video is there with and without v_")
        names.add(video_id)
        duration = json_number(f"{where}, 'duration'", entry.get("duration"))
        if duration <= 0:
            raise TaskFileError(f"{where}: 'duration' must be above 0 s, got {duration}")
        times, texts = (
            as_list(f"{where}, {name!r}", entry.get(name)) for name in ("timestamps", "sentences")
        )
        if len(times) != len(texts):
            raise TaskFileError(f"{where}: {len(times)} timestamps, but {len(texts)} sentences")
        for place, (pair, text) in enumerate(zip(times, texts, strict=True)):
            start, end = _numbers(f"{where}, timestamp {place}", pair, "start, end")
            if not isinstance(text, str):
                raise TaskFileError(f"{where}, sentence {place}: must be a string")
            if start >= end:
                dropped += 1
                continue
            start, end = (min(max(time, 0.0), duration) for time in (start, end))
            queries.append(Query(video_id, text.strip(), start, end, duration))
    if not queries:
        raise TaskFileError(f"{path} has no sentence with a segment")
    return Truth(pathlib.Path(path).stem, queries, dropped)


def _numbers(where: str, value: object, names: str) -> list[float]:
    wanted = names.split(", ")
    if not isinstance(value, list) or len(value) != len(wanted):
        raise TaskFileError(f"{where}: must be [{names}] in seconds, got {shorten(value)}")
    return [json_number(f"{where}, {name}", one) for name, one in zip(wanted, value, strict=True)]


def read_predictions(path: Path, queries: Sequence[Query]) -> list[list[Span]]:
    """Read the spans of each query, best first.

    Raises:
      TaskFileError: the file has another format, a query is missing, unknown or there too often, or
        a span is reversed or outside its video.
    """
    waiting: dict[tuple[str, str], collections.deque[int]] = collections.defaultdict(
        collections.deque
    )
    for place, query in enumerate(queries):
        waiting[query.video_id, query.text].append(place)
    found: list[list[Span] | None] = [None] * len(queries)
    for row in read_objects(path):
        video_id, text = text_of(row, "vid").removeprefix("v_"), text_of(row, "query").strip()
        places = waiting.get((video_id, text))
        if not places:
            often = "at all" if places is None else "as often"
            raise TaskFileError(
                f"{row.where}: the ground truth does not have {shorten(text)} of video "
                f"{shorten(video_id)} {often}"
            )
        place = places.popleft()
        found[place] = _spans(row, queries[place].duration)
    if lost := [query for query, spans in zip(queries, found, strict=True) if spans is None]:
        raise TaskFileError(
            f"{path}: no line for {len(lost):,} of {len(queries):,} sentences, such as "
            f"{shorten(lost[0].text)} of video {shorten(lost[0].video_id)}: give every sentence, "
            'with "pred_relevant_windows": [] if nothing was found'
        )
    return [spans or [] for spans in found]


def _spans(row: Row, duration: float) -> list[Span]:
    spans = []
    of_row = as_list(
        f"{row.where}, 'pred_relevant_windows'", row.values.get("pred_relevant_windows")
    )
    for place, value in enumerate(of_row):
        where = f"{row.where}, span {place}"
        span = Span(*_numbers(where, value, "start, end, score"))
        if span.end <= span.start:
            raise TaskFileError(f"{where}: ends at {span.end:g} s, not after its start")
        if span.start < 0 or span.end > duration + _ROUNDING:
            raise TaskFileError(
                f"{where}: {span.start:g} to {span.end:g} s is not within the video's "
                f"{duration:g} s"
            )
        spans.append(span)
    return sorted(spans, key=lambda span: -span.score)


def write_predictions(
    path: Path, queries: Sequence[Query], found: Sequence[Sequence[Span]]
) -> None:
    """Write the spans of each query, one line each."""
    with open(path, "w", encoding="utf-8") as file:
        for query, spans in zip(queries, found, strict=True):
            line = {
                "vid": f"v_{query.video_id}",
                "query": query.text,
                "pred_relevant_windows": [list(span) for span in spans],
            }
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def score(predictions: Path, truth: Path) -> Moments:
    """Score a file of spans.

    Raises:
      TaskFileError: a file has another format, or the files do not match.
    """
    of_truth = read_truth(truth)
    return figures(read_predictions(predictions, of_truth.queries), of_truth)


def figures(
    found: Sequence[Sequence[Span]],
    truth: Truth,
    random_encoder: Sequence[Sequence[Span]] | None = None,
) -> Moments:
    """Return the metrics of each query's spans, best first.

    Args:
      found: the spans of each query.
      truth: the queries.
      random_encoder: the spans that the same search finds with random parameters.

    Raises:
      NonFiniteError: a time is not finite.
    """
    queries = truth.queries
    true = np.array([(query.start, query.end) for query in queries])
    return {
        "truth": truth.name,
        "queries": len(queries),
        "videos": len({query.video_id for query in queries}),
        "dropped": truth.dropped,
        "missed": sum(not spans for spans in found),
        "found": _recalls(found, true),
        "prior": moment_recall.prior(true, np.array([query.duration for query in queries])),
        "random_encoder": None if random_encoder is None else _recalls(random_encoder, true),
    }


def _recalls(found: Sequence[Sequence[Span]], true: Float[np.ndarray, "q 2"]) -> Recalls:
    spans = [np.array([span[:2] for span in of], np.float64).reshape(-1, 2) for of in found]
    return moment_recall.recalls(moment_recall.overlaps(spans, true))


def table(found: Moments) -> str:
    """Format the metrics as a table for the terminal."""
    columns = [f"R@{rank} {at}" for rank in RANKS for at in THRESHOLDS]
    title = f"moments, {found['truth']}: {found['queries']:,} texts, {found['videos']:,} videos"
    lines = [f"{title:<44}" + "".join(f"{name:>9}" for name in (*columns, "mIoU"))]
    rows: Mapping[str, Recalls | None] = {
        "spans found": found["found"],
        "best spans that are the same for all": found["prior"],
        "random encoder": found["random_encoder"],
    }
    for name, recalls in rows.items():
        if recalls is not None:
            values = [*recalls["R@1"].values(), *recalls["R@5"].values(), recalls["mIoU"]]
            lines.append(f"  {name:<42}" + "".join(f"{value:9.1f}" for value in values))
    if missed := found["missed"]:
        lines.append(f"  {missed:,} texts have no span and count as missed")
    if dropped := found["dropped"]:
        lines.append(f"  {dropped:,} segments that do not end after their start are left out")
    return "\n".join(lines)
