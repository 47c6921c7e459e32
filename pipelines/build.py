"""The Beam graph: annotation rows → requests by shard → shards → manifest.

Only small rows pass between workers, many in one element; frames never leave the work item that
decoded them.
"""

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsList, AsSingleton, TaggedOutput
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from pipelines import (
    batches,
    counters,
    engine,
    filters,
    plan_summary,
    snapshot,
    versions,
    video_lookup,
)
from pipelines.nouns import NounParser
from pipelines.plan import Plan, read_rows
from pipelines.shard import ShardOutcome, build_shard
from pipelines.video_lookup import VideoLookup
from protos import contract
from protos.v1.manifest_pb2 import Counts, Manifest, Reject


class LostRowsError(RuntimeError):
    """Rows that are neither records nor rejects: a fault of this program."""


def run(
    plan: Plan,
    runner: PipelineRunner | str,
    options: PipelineOptions,
    begun: Callable[[PipelineResult], None] = lambda result: None,
) -> PipelineResult:
    """Builds the snapshot. Its manifest is there afterwards, unless there was no record.

    Args:
      plan: what to build.
      runner: the engine.
      options: the engine's.
      begun: told of the job, which may run elsewhere, before it is waited for (engine.waits).

    Raises:
      KeyboardInterrupt: Ctrl-C; the job is cancelled, else it would go on with nobody watching.
    """
    pipeline = beam.Pipeline(runner=runner, options=options)
    graph(pipeline, plan, _BuildShard(plan))
    result = pipeline.run()
    begun(result)
    try:
        if engine.waits(options):
            result.wait_until_finish()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):  # an engine that is gone needs no telling
            result.cancel()
        raise
    return result


def graph(pipeline: beam.Pipeline, plan: Plan, build_shards: beam.DoFn) -> None:
    """What is to be done; `build_shards` makes ShardOutcomes of (shard, batches of requests)."""
    rows = (
        pipeline
        | "Name annotation files" >> beam.Create(plan.annotations)
        | "Plan rows"
        >> beam.ParDo(_PlanRows(plan))
        .with_output_types(tuple[int, bytes])
        .with_outputs(_REJECTS, _COUNTS, main=_REQUESTS)
    )
    count = rows[_COUNTS] | "Count rows" >> beam.CombineGlobally(sum)
    shards = pipeline | "Name every shard" >> beam.Create(
        [(shard, b"") for shard in range(plan.config.num_shards)]
    )
    for_shards = [rows[_REQUESTS], shards]
    if plan.list_videos:
        files = (
            pipeline
            | "Name videos" >> beam.Create([plan.videos])
            | "List videos"
            >> beam.FlatMap(_list_videos, plan.config.num_shards).with_output_types(
                tuple[int, bytes]
            )
        )
        for_shards.append(files)
    outcomes = (
        for_shards
        | beam.Flatten()
        | "Gather shards" >> beam.GroupByKey()
        | "Build shards" >> beam.ParDo(build_shards)
    )
    _ = (
        pipeline
        | "Once" >> beam.Create([plan])
        | "Write manifest"
        >> beam.Map(
            write_manifest,
            AsSingleton(count),
            AsList(rows[_REJECTS]),
            AsList(outcomes),  # pyright: ignore[reportArgumentType]  (of a tuple | Flatten)
        )
    )


_REQUESTS, _REJECTS, _COUNTS = "requests", "rejects", "counts"


class _PlanRows(beam.DoFn):
    """An annotation file to (shard, batch of requests); batches of rejects and counts, tagged."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def process(self, element: str) -> Iterator[tuple[int, bytes] | TaggedOutput]:
        config = self._plan.config
        rows = (
            counters.row(filters.keep(row, config.filters, self._plan.excluded))
            for row in read_rows(element, self._plan.source, config.source)
        )
        for batch in batches.of(rows, config.num_shards):
            match batch:
                case batches.Requests(shard, packed):
                    yield shard, packed
                case batches.Rejects():
                    yield TaggedOutput(_REJECTS, tuple(batch))
                case batches.Count(count):
                    yield TaggedOutput(_COUNTS, count)


def _list_videos(videos: str, num_shards: int) -> Iterator[tuple[int, bytes]]:
    """All files there, each to the shard whose rows may want it."""
    for batch in batches.of_files(video_lookup.listing(videos), num_shards):
        yield batch.shard, batch.packed


class _BuildShard(beam.DoFn):
    """shard.build_shard, with the English pipeline and the video map loaded once a process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def setup(self) -> None:
        versions.check(self._plan)
        self._parser = NounParser(self._plan.spacy_model, self._plan.config.prompt_templates)
        self._lookup = VideoLookup(self._plan.videos, self._plan.video_map)

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterable[ShardOutcome]:
        shard, packed = element[0], [*element[1]]
        requests = itertools.chain.from_iterable(map(batches.requests, packed))
        watch = counters.ShardWatch()
        lookup = self._lookup
        if self._plan.list_videos:
            lookup = lookup.among(batches.files(packed))
        outcome = build_shard(shard, requests, self._plan, self._parser, lookup, watch.decoded)
        watch.ended(outcome)
        yield outcome


def write_manifest(
    plan: Plan,
    rows: int,
    rejects: list[tuple[str, int, bytes]],
    outcomes: list[ShardOutcome],
) -> None:
    """Checks that every row is accounted for, then completes the snapshot.

    Args:
      plan: what was built.
      rows: of all annotation files.
      rejects: batches.Rejects, in any order.
      outcomes: of the shards, in any order.

    Raises:
      LostRowsError: a row is not, or a shard is missing.
    """
    outcomes = sorted(outcomes, key=lambda outcome: outcome.shard)
    if [outcome.shard for outcome in outcomes] != list(range(plan.config.num_shards)):
        raise LostRowsError(f"{len(outcomes)} shards were built of {plan.config.num_shards}")
    by_reason: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        by_reason.update(outcome.rejects)
        _account(
            f"shard {outcome.shard}",
            outcome.rows,
            outcome.entry.records,
            sum(outcome.rejects.values()),
        )

    def counted() -> Iterator[Reject]:
        for _, _, packed in sorted(rejects):
            for reject in batches.rejects(packed):
                by_reason[reject.reason] += 1
                yield reject

    plan_file = plan_summary.write(plan.out, rows, counted())
    records = sum(outcome.entry.records for outcome in outcomes)
    _account("the annotations", rows, records, by_reason.total())
    if not records:
        return
    manifest = Manifest(
        schema_version=contract.SCHEMA_VERSION,
        data_version=plan.data_version,
        dataset=plan.source,
        inputs_sha256=snapshot.inputs_sha256(
            plan.annotation_files, (outcome.videos_sha256 for outcome in outcomes)
        ),
        config_sha256=plan.config_sha256,
        config=plan.config,
        versions=plan.versions,
        annotations=plan.annotation_files,
        counts=Counts(rows=rows, records=records, rejects=by_reason),
        shards=[outcome.entry for outcome in outcomes],
        plan=plan_file,
    )
    snapshot.write_manifest(plan.out, manifest)


def _account(what: str, rows: int, records: int, rejects: int) -> None:
    if rows != records + rejects:
        raise LostRowsError(
            f"{what}: {rows} rows, but {records} records and {rejects} rejects; "
            "please report this: rows must never be lost"
        )
