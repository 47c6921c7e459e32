"""What a build tells while it runs, on any engine: Dataflow's page shows it beside each step.

All is counted in work items of Beam, never in their children, so that an engine can add it up over
its machines and count an item that it had to repeat once.
"""

import functools
import time
from typing import Any, NamedTuple

from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineResult

from pipelines.building.shard import ShardOutcome
from pipelines.decoding.sandbox import fork_server
from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import Reject

NAMESPACE = "svilm"

# A distribution for its ends: its least value is when the first shard was begun, its greatest when
# the last was finished. Engines report nothing else that tells start-up from work.
_AT_WORK = "at_work_unix_ms"

_WITHOUT = "shards_without_"  # a layer of the sandbox

_counter = functools.cache(functools.partial(Metrics.counter, NAMESPACE))
_distribution = functools.cache(functools.partial(Metrics.distribution, NAMESPACE))


def row(read: ClipRequest | Reject) -> ClipRequest | Reject:
    """Counts a row of the annotations, and its reject if it is one."""
    _counter("rows").inc()
    if isinstance(read, Reject):
        _counter(f"rejects_{read.reason}").inc()
    return read


class ShardWatch:
    """Counts the work on one shard, from the moment it is made."""

    def __init__(self) -> None:
        self._began = time.time()

    def decoded(self, clips: int, seconds: float) -> None:
        """Counts a video: what fetching and decoding it and encoding its frames took."""
        _distribution("decode_ms_per_video").update(round(seconds * 1000))
        _distribution("decode_ms_per_clip").update(round(seconds * 1000 / clips))

    def ended(self, outcome: ShardOutcome) -> None:
        """Counts what became of the shard."""
        for reason, count in outcome.rejects.items():
            _counter(f"rejects_{reason}").inc(count)
        entry = outcome.entry
        _counter("records").inc(entry.records)
        _distribution("clips_per_shard").update(entry.records)
        if outcome.reused:
            _counter("shards_reused").inc()
            return
        _counter("shards_built").inc()
        for layer in fork_server.seen:
            _counter(f"{_WITHOUT}{layer}").inc()
        _counter("records_built").inc(entry.records)
        _counter("bytes_written").inc(entry.data.bytes + entry.index.bytes + entry.summary.bytes)
        for moment in (self._began, time.time()):
            _distribution(_AT_WORK).update(round(moment * 1000))


class Totals(NamedTuple):
    """What one run did, of all that its snapshot holds."""

    records: int
    bytes: int
    built: int  # shards
    reused: int  # shards
    began: float  # the first work item, Unix time in seconds
    ended: float  # the last
    unconfined: tuple[str, ...] = ()  # layers of the sandbox that were missing somewhere


def totals(result: PipelineResult) -> Totals | None:
    """What a finished run counted; None if it built no shard, or its engine does not tell."""
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    counts: dict[str, int] = {}
    for counter in found["counters"]:  # one for each step that counts it
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
