"""The Beam graph: annotation rows → requests by shard → shards → manifest.

Only small rows pass between workers; frames never leave the work item that decoded them.
"""

import collections
from collections.abc import Iterable

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsList, AsSingleton
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from pipelines import counters, filters, snapshot
from pipelines.clip_request import ClipRequest, row_order
from pipelines.nouns import NounParser
from pipelines.plan import Plan, read_rows, shard_of
from pipelines.shard import ShardOutcome, build_shard
from pipelines.video_lookup import VideoLookup
from protos import contract
from protos.v1.manifest_pb2 import Counts, Manifest, PlanSummary, Reject


class LostRowsError(RuntimeError):
    """Rows that are neither records nor rejects: a fault of this program."""


def run(plan: Plan, runner: PipelineRunner | str, options: PipelineOptions) -> PipelineResult:
    """Builds the snapshot. Its manifest is there afterwards, unless there was no record."""
    num_shards = plan.config.num_shards
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        rows = (
            pipeline
            | "Name annotation files" >> beam.Create(plan.annotations)
            | "Read rows" >> beam.FlatMap(read_rows, plan.source, plan.config.source)
            | "Filter rows" >> beam.Map(filters.keep, plan.config.filters, plan.excluded)
            | "Tell rows" >> beam.Map(counters.row)
        )
        count = rows | "Count rows" >> beam.combiners.Count.Globally()
        requests = rows | "Keep requests" >> beam.Filter(lambda row: isinstance(row, ClipRequest))
        rejects = rows | "Keep rejects" >> beam.Filter(lambda row: isinstance(row, Reject))
        outcomes = (
            (
                requests
                | "Assign shards" >> beam.Map(lambda r: (shard_of(r.video_id, num_shards), r)),
                pipeline
                | "Name every shard" >> beam.Create([(shard, None) for shard in range(num_shards)]),
            )
            | beam.Flatten()
            | "Gather shards" >> beam.GroupByKey()
            | "Build shards" >> beam.ParDo(_BuildShard(plan))
        )
        _ = (
            pipeline
            | "Once" >> beam.Create([plan])
            | "Write manifest"
            >> beam.Map(
                write_manifest,
                AsSingleton(count),
                AsList(rejects),
                AsList(outcomes),  # pyright: ignore[reportArgumentType]  (of a tuple | Flatten)
            )
        )
    return pipeline.result


class _BuildShard(beam.DoFn):
    """shard.build_shard, with the English pipeline and the video map loaded once a process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def setup(self) -> None:
        self._parser = NounParser(self._plan.spacy_model, self._plan.config.prompt_templates)
        self._lookup = VideoLookup(self._plan.videos, self._plan.video_map)

    def process(self, element: tuple[int, Iterable[ClipRequest | None]]) -> Iterable[ShardOutcome]:
        shard, requests = element
        present = [request for request in requests if request is not None]
        watch = counters.ShardWatch()
        outcome = build_shard(shard, present, self._plan, self._parser, self._lookup, watch.decoded)
        watch.ended(outcome)
        yield outcome


def write_manifest(
    plan: Plan, rows: int, rejects: list[Reject], outcomes: list[ShardOutcome]
) -> None:
    """Checks that every row is accounted for, then completes the snapshot.

    Raises:
      LostRowsError: a row is not, or a shard is missing.
    """
    outcomes = sorted(outcomes, key=lambda outcome: outcome.shard)
    if [outcome.shard for outcome in outcomes] != list(range(plan.config.num_shards)):
        raise LostRowsError(f"{len(outcomes)} shards were built of {plan.config.num_shards}")
    by_reason = collections.Counter(reject.reason for reject in rejects)
    for outcome in outcomes:
        by_reason.update(outcome.rejects)
        _account(
            f"shard {outcome.shard}",
            outcome.rows,
            outcome.entry.records,
            sum(outcome.rejects.values()),
        )
    records = sum(outcome.entry.records for outcome in outcomes)
    _account("the annotations", rows, records, by_reason.total())

    summary = PlanSummary(
        rows=rows, rejects=sorted(rejects, key=lambda reject: row_order(reject.source_row))
    )
    plan_file = snapshot.write_file(plan.out, contract.PLAN_NAME, snapshot.to_json(summary))
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
