"""Moments among the videos of an index: the spans that a query describes, best first.

The index has the sliding windows of whole videos, such as those of `svilm-pipelines build
activitynet --window`. Spans are found in each video by its windows (trainer/inference/moments.py),
and never overlap. Spans of several videos rank by their mean cosine with the query.

A mean is at most the highest cosine of a window. So videos are searched in the order of their best
window, until no other can have a better span.
"""

import bisect
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int

from trainer.index.files import Columns
from trainer.index.neighbors import DECIMALS
from trainer.index.queries import Filters
from trainer.inference import moments

_PER_VIDEO = 10  # spans
_FIRST = 16  # videos that are ranked at first

Ranked = Callable[[int], tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]]
"""Returns the best rows of at most the given number of videos, best first, and their cosines."""
Cosines = Callable[[Int[np.ndarray, " n"]], Float[np.ndarray, " n"]]
"""Returns the cosines of rows with the query."""


@dataclasses.dataclass(frozen=True)
class MomentHit:
    """A span of a video that a search found."""

    score: float  # mean cosine of the query and the windows of the span
    video_id: str
    start_us: int  # microseconds
    end_us: int
    dataset: str
    snapshot: str  # folder of the snapshot when the index was built


@dataclasses.dataclass(frozen=True)
class Videos:
    """The windows of an index, grouped by video."""

    columns: Columns
    snapshots: list[dict[str, str]]  # folder and data set of each
    among: np.ndarray | None  # True at windows to consider; None considers all

    def windows(self, row: int) -> Int[np.ndarray, " n"]:
        """Return the rows of the video of a row."""
        dataset = self.snapshots[int(self.columns["snapshot"][row])]["dataset"]
        same = [number for number, one in enumerate(self.snapshots) if one["dataset"] == dataset]
        is_mine = self.columns["video"] == self.columns["video"][row]
        is_mine &= np.isin(self.columns["snapshot"], same)
        return np.flatnonzero(is_mine if self.among is None else is_mine & self.among)


def find(
    ranked: Ranked,
    cosines: Cosines,
    videos: Videos,
    filters: Filters,
    count: int,
    each_video: bool = False,
) -> list[MomentHit]:
    """Return at most `count` spans, best first.

    Args:
      ranked: the ranking of the videos.
      cosines: the cosines of the query.
      videos: the windows.
      filters: conditions on the spans' lengths and scores. The others are in `videos`.
      count: maximum number of spans.
      each_video: whether to return only one span of each video, that with the largest excess.
    """
    found: list[MomentHit] = []
    done, fetched = 0, max(_FIRST, count)
    while True:
        rows, best = ranked(fetched)
        for row, highest in zip(rows[done:].tolist(), best[done:].tolist(), strict=True):
            is_full = len(found) >= count and found[count - 1].score >= highest
            if is_full or highest < filters.min_score:
                return found[:count]
            hits = [hit for hit in _of_video(row, cosines, videos) if _is_let_through(hit, filters)]
            for hit in hits[: 1 if each_video else None]:
                bisect.insort(found, hit, key=lambda hit: -hit.score)
        if len(rows) < fetched:
            return found[:count]
        done, fetched = len(rows), 4 * fetched


def _of_video(row: int, cosines: Cosines, videos: Videos) -> Iterator[MomentHit]:
    """Yield the spans of the video of a row, best first."""
    rows, columns = videos.windows(row), videos.columns
    times_us = np.stack([columns["start_us"][rows], columns["end_us"][rows]], axis=1)
    spans = moments.find_by_cosine(cosines(rows), times_us, _PER_VIDEO, overlap=0.0)
    about = videos.snapshots[int(columns["snapshot"][row])]
    for place, span in enumerate(spans):
        if place == 0 or span.score > 0:  # a span below half height is no moment
            yield MomentHit(
                score=round(span.cosine, DECIMALS),
                video_id=columns.videos[int(columns["video"][row])],
                start_us=span.start_us,
                end_us=span.end_us,
                dataset=about["dataset"],
                snapshot=about["folder"],
            )


def _is_let_through(hit: MomentHit, filters: Filters) -> bool:
    length_us = hit.end_us - hit.start_us
    is_short = filters.max_us is None or length_us <= filters.max_us
    return is_short and length_us >= filters.min_us and hit.score >= filters.min_score
