"""Beam metrics of a running build, on any engine.

Dataflow's job page shows them at each step. Only Beam work items update the metrics, never their
child processes. An engine can therefore sum them over its machines and count a retried item once.
"""

import functools
import time
from typing import Any, NamedTuple

from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineResult

from pipelines.building.shard import ShardOutcome
from pipelines.decoding.sandbox import fork_client
from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import Reject

NAMESPACE = "svilm"

# A distribution whose minimum is the start of the first shard and whose maximum is the end of the
# last one. Engines report nothing else that separates start-up from work.
_AT_WORK = "at_work_unix_ms"

_WITHOUT = "shards_without_"  # prefix; the name of a sandbox layer follows

_counter = functools.cache(functools.partial(Metrics.counter, NAMESPACE))
_distribution = functools.cache(functools.partial(Metrics.distribution, NAMESPACE))


def row(read: ClipRequest | Reject) -> ClipRequest | Reject:
    """Count an annotation row, and its reject reason if it is a reject, and return it."""
    _counter("rows").inc()
    if isinstance(read, Reject):
        _counter(f"rejects_{read.reason}").inc()
    return read


class ShardWatch:
    """Counter of the work on one shard, whose time starts when the object is created."""

    def __init__(self) -> None:
        self._began = time.time()

    def decoded(self, clips: int, seconds: float) -> None:
        """Record the time of one video.

        Args:
          clips: number of clips requested from the video.
          seconds: time to fetch it, decode it and encode its frames.
        """
        _distribution("decode_ms_per_video").update(round(seconds * 1000))
        _distribution("decode_ms_per_clip").update(round(seconds * 1000 / clips))

    def ended(self, outcome: ShardOutcome) -> None:
        """Count the shard's records, rejects, bytes and work time."""
        for reason, count in outcome.rejects.items():
            _counter(f"rejects_{reason}").inc(count)
        entry = outcome.entry
        _counter("records").inc(entry.records)
        _distribution("clips_per_shard").update(entry.records)
        if outcome.reused:
            _counter("shards_reused").inc()
            return
        _counter("shards_built").inc()
        for layer in fork_client.seen:
            _counter(f"{_WITHOUT}{layer}").inc()
        _counter("records_built").inc(entry.records)
        _counter("bytes_written").inc(entry.data.bytes + entry.index.bytes + entry.summary.bytes)
        for moment in (self._began, time.time()):
            _distribution(_AT_WORK).update(round(moment * 1000))


class Totals(NamedTuple):
    """The work of one run, which may be a part of its snapshot."""

    records: int
    bytes: int
    built: int  # shards
    reused: int  # shards
    began: float  # start of the first shard, Unix time in seconds
    ended: float  # end of the last shard, Unix time in seconds
    unconfined: tuple[str, ...] = ()  # sandbox layers that were missing in some worker


def totals(result: PipelineResult) -> Totals | None:
    """Return a finished run's totals, or None if it built no shard or has no metrics."""
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    counts: dict[str, int] = {}
    for counter in found["counters"]:  # A metric has one entry for each step that updates it.
        name = counter.key.metric.name
        counts[name] = counts.get(name, 0) + (counter.result or 0)
    at_work: list[Any] = [d.result for d in found["distributions"] if d.key.metric.name == _AT_WORK]
    if not at_work:
        return None
    return Totals(
        records=counts.get("records_built", 0),
        bytes=counts.get("bytes_written", 0),
        built=counts.get("shards_built", 0),
        reused=counts.get("shards_reused", 0),
        began=min(d.min for d in at_work) / 1000,
        ended=max(d.max for d in at_work) / 1000,
        unconfined=tuple(
            sorted(name.removeprefix(_WITHOUT) for name in counts if name.startswith(_WITHOUT))
        ),
    )
