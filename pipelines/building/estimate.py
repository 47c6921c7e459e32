"""Estimate of a build's records, size, time and cost from a sample of its videos.

The sample consists of videos, not rows, because a build fetches and opens a video once for all its
rows. A total is the number of rows to decode times the sample's quantity per row. Its standard
error is that of a ratio estimate: W. G. Cochran, Sampling Techniques (1977), eq. 6.9.
"""

import collections
import dataclasses
import hashlib
import heapq
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

from pipelines.building import shard
from pipelines.building.nouns import NounParser
from pipelines.formatting import format_bytes, format_duration
from pipelines.planning import filters
from pipelines.planning.plan import Plan, read_rows, units
from pipelines.planning.video_lookup import VideoLookup
from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import Reject


@dataclasses.dataclass(frozen=True)
class Rows:
    """Counts of all annotation rows, and the rows of the sampled videos."""

    rows: int
    rejects: dict[str, int]  # count by reason, of rows rejected before decoding
    drawn: tuple[tuple[ClipRequest, ...], ...]  # one inner tuple per sampled video


@dataclasses.dataclass(frozen=True)
class SampledVideo:
    """The result of building one video."""

    rows: int
    records: int
    rejects: dict[str, int]  # count by reason
    bytes: int  # size of its records
    seconds: float  # time of one worker


@dataclasses.dataclass(frozen=True)
class Total:
    """An estimated total and its standard error."""

    value: float
    error: float


def draw(rows: Iterable[ClipRequest | Reject], videos: int) -> Rows:
    """Draw up to `videos` videos with equal probability, in one pass over the rows.

    The sample is the videos whose ids have the smallest sha256. It is the same in every run,
    whatever the size of the annotations.
    """
    count, rejects = 0, collections.Counter()
    # A heap of (−hash, id), so that the largest hash is at index 0 and is dropped first.
    smallest: list[tuple[int, str]] = []
    drawn: dict[str, list[ClipRequest]] = {}
    for row in rows:
        count += 1
        if isinstance(row, Reject):
            rejects[row.reason] += 1
            continue
        if row.video_id not in drawn:
            rank = -int.from_bytes(hashlib.sha256(row.video_id.encode()).digest()[:8])
            if len(smallest) < videos:
                heapq.heappush(smallest, (rank, row.video_id))
            elif rank > smallest[0][0]:
                del drawn[heapq.heappushpop(smallest, (rank, row.video_id))[1]]
            else:
                continue
            drawn[row.video_id] = []
        drawn[row.video_id].append(row)
    of_videos = tuple(tuple(drawn[video_id]) for _, video_id in sorted(smallest, reverse=True))
    return Rows(count, dict(rejects), of_videos)


def read(plan: Plan, videos: int) -> Rows:
    """Draw up to `videos` videos from a plan's annotations, after its filters."""
    rows = (
        filters.keep(row, plan.config.filters, plan.excluded)
        for paths in units(plan.source, plan.annotations)
        for row in read_rows(paths, plan.source, plan.config.source)
    )
    return draw(rows, videos)


def build_sample(
    plan: Plan,
    drawn: Sequence[Sequence[ClipRequest]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SampledVideo]:
    """Build the sampled videos one after another and discard the output.

    Args:
      plan: the build to estimate.
      drawn: the rows of each sampled video.
      progress: called after each video with the number of finished videos and of all videos.

    Returns:
      The result of each video.
    """
    parser = NounParser(plan.spacy_model, plan.config.prompt_templates)
    lookup = VideoLookup(plan.videos, plan.video_map)
    tried = []
    for requests in drawn:
        with tempfile.TemporaryDirectory(prefix="svilm-estimate-") as folder:
            began = time.monotonic()
            outcome = shard.build_shard(
                0, requests, dataclasses.replace(plan, out=folder), parser, lookup
            )
            seconds = time.monotonic() - began
        entry = outcome.entry
        tried.append(
            SampledVideo(outcome.rows, entry.records, outcome.rejects, entry.data.bytes, seconds)
        )
        progress(len(tried), len(drawn))
    return tried


def total(to_decode: int, rows: Sequence[int], values: Sequence[float]) -> Total:
    """Estimate the sum of a quantity over all rows to decode.

    Args:
      to_decode: number of rows to decode in the whole build.
      rows: number of rows of each sampled video.
      values: the quantity of each sampled video.

    Returns:
      The ratio estimate and its standard error, which is infinite for a single video.

    >>> total(1000, [1, 3], [10.0, 30.0])
    Total(value=10000.0, error=0.0)
    """
    ratio = sum(values) / sum(rows)
    if len(rows) < 2:
        return Total(to_decode * ratio, math.inf)
    mean = sum(rows) / len(rows)
    spread = sum((y - ratio * n) ** 2 for n, y in zip(rows, values, strict=True)) / (len(rows) - 1)
    return Total(to_decode * ratio, to_decode * math.sqrt(spread / len(rows)) / mean)


def lines(
    rows: Rows, tried: Sequence[SampledVideo], workers: int, price: float | None
) -> list[str]:
    """Return the lines of the human-readable estimate.

    Args:
      rows: the annotations.
      tried: the results of the sample's videos; at least one.
      workers: number of workers of the build.
      price: price of one worker for one hour; None omits the cost.
    """
    to_decode = rows.rows - sum(rows.rejects.values())
    counts = [one.rows for one in tried]

    def of(values: Iterable[float]) -> Total:
        return total(to_decode, counts, [*values])

    records = of(one.records for one in tried)
    size = of(one.bytes for one in tried)
    seconds = of(one.seconds for one in tried)
    failed = sum((collections.Counter(one.rejects) for one in tried), collections.Counter())
    lines = [
        f"sample    {len(tried):,} videos, {sum(counts):,} rows, "
        f"{sum(one.seconds for one in tried):.1f} s{_reasons(failed)}",
        f"rows      {rows.rows:,}, {to_decode:,} of them to decode{_reasons(rows.rejects)}",
        f"records   {_interval(records, '{:,.0f}'.format)}",
        f"size      {_interval(size, format_bytes)}",
        f"decoding  {_interval(seconds, format_duration)} with one worker, "
        f"{format_duration(seconds.value / workers)} with --workers {workers}, "
        "without start-up and stragglers",
    ]
    if price is not None:
        cost = Total(seconds.value / 3600 * price, seconds.error / 3600 * price)
        lines.append(f"cost      {_interval(cost, '{:,.4g}'.format)} at {price:g} per worker-hour")
    return lines


def _interval(of: Total, wording: Callable[[float], str]) -> str:
    """Format a total with its 95 % interval."""
    if math.isinf(of.error):
        return f"{wording(of.value)} (one video: no interval)"
    return f"{wording(of.value)} ± {wording(1.96 * of.error)}"


def _reasons(rejects: dict[str, int]) -> str:
    if not rejects:
        return ""
    counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(rejects.items()))
    return f"; rejects: {counts}"
