"""The Beam graph: annotation files → locations of rows by shard → shards → manifest.

Only locations of rows pass between workers. Frames never leave the work item that decoded them.
"""

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsList, AsSingleton, TaggedOutput
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from pipelines.building import beam_metrics, other_increments, row_spill, runners, software_versions
from pipelines.building.nouns import NounParser
from pipelines.building.shard import ShardOutcome, build_shard
from pipelines.planning import filters, video_lookup
from pipelines.planning.plan import Plan, read_rows, units
from pipelines.planning.video_lookup import VideoLookup
from pipelines.snapshots import plan_summary, snapshot, split
from pipelines.snapshots.redaction import redaction_of
from pipelines.sources.clip_request import ClipRequest
from protos import contract
from protos.v1.manifest_pb2 import Counts, FileEntry, Manifest, Reject

_BYTES_TOGETHER = 64 << 20  # maximum size of a group of small annotation files, one Beam element


_REPORT = "report this fault in svilm: no row may be lost"


class LostRowsError(RuntimeError):
    """An internal error: rows that became neither records nor rejects."""


def run(
    plan: Plan,
    runner: PipelineRunner | str,
    options: PipelineOptions,
    begun: Callable[[PipelineResult], None] = lambda result: None,
) -> PipelineResult:
    """Run the graph, which writes the snapshot's shards and, if it has records, its manifest.

    The call returns after the job has ended, or after submission if `runners.waits` is false.

    Args:
      plan: the snapshot to build.
      runner: the engine.
      options: the engine's options.
      begun: called with the submitted job, which may run elsewhere, before the wait for its end.

    Returns:
      Beam's result.

    Raises:
      KeyboardInterrupt: on Ctrl-C. The job is cancelled so that it does not continue unattended.
    """
    with runners.own_temporary_folder():
        pipeline = beam.Pipeline(runner=runner, options=options)
        graph(pipeline, plan, _BuildShard(plan))
        result = pipeline.run()
        begun(result)
        try:
            if runners.waits(options):
                result.wait_until_finish()
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # The engine may have ended already.
                result.cancel()
            raise
        return result


def graph(pipeline: beam.Pipeline, plan: Plan, build_shards: beam.DoFn) -> None:
    """Add the steps of a build to `pipeline`.

    Args:
      pipeline: the Beam pipeline.
      plan: the snapshot to build.
      build_shards: DoFn from (shard, locations of its rows) to a ShardOutcome.
    """
    rows = (
        pipeline
        | "Name annotation files" >> beam.Create(_together(plan))
        | "Plan rows"
        >> beam.ParDo(_PlanRows(plan)).with_outputs("rejects", "counts", main="requests")
    )
    count = rows["counts"] | "Count rows" >> beam.CombineGlobally(sum)
    shards = pipeline | "Name every shard" >> beam.Create(
        [(shard, row_spill.NOWHERE) for shard in range(plan.config.num_shards)]
    )
    for_shards = [rows["requests"], shards]
    if plan.list_videos:
        videos = (
            pipeline
            | "Name videos" >> beam.Create([plan.videos])
            | "List videos" >> beam.FlatMap(_list_videos, plan.config.num_shards, plan.out)
        )
        for_shards.append(videos)
    outcomes = (
        for_shards
        | beam.Flatten()
        | "Gather shards" >> beam.GroupByKey()
        | "Build shards" >> beam.ParDo(build_shards)
    )
    complete = (
        pipeline
        | "Once" >> beam.Create([plan])
        | "Write manifest"
        >> beam.Map(
            write_manifest,
            AsSingleton(count),
            AsList(rows["rejects"]),
            AsList(outcomes),  # pyright: ignore[reportArgumentType]  (of a tuple | Flatten)
        )
    )
    _ = (
        pipeline
        | "Name the folder" >> beam.Create([plan.out])
        # A side input separates the two steps. A retry of the manifest would need the rows.
        | "Remove rows" >> beam.Map(lambda out, _: row_spill.remove(out), AsSingleton(complete))
    )


# Beam derives coders from these types, so that it does not pickle the elements.
_Rejects = TaggedOutput[Literal["rejects"], tuple[str, int, row_spill.Place]]
_Count = TaggedOutput[Literal["counts"], int]


class _PlanRows(beam.DoFn):
    """DoFn from annotation files to (shard, location of rows), with tagged rejects and counts."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def process(
        self, element: tuple[str, ...]
    ) -> Iterator[tuple[int, row_spill.Place] | _Rejects | _Count]:
        files = map(self._rows, units(self._plan.source, element))
        for batch in row_spill.write(files, self._plan.config.num_shards, self._plan.out):
            match batch:
                case row_spill.Requests(shard, place):
                    yield shard, place
                case row_spill.Rejects(file, row, place):
                    yield _Rejects("rejects", (file, row, place))
                case row_spill.Count(count):
                    yield _Count("counts", count)

    def _rows(self, paths: tuple[str, ...]) -> Iterator[ClipRequest | Reject]:
        config, gone = self._plan.config, redaction_of(self._plan.removed)
        for row in read_rows(paths, self._plan.source, config.source):
            if config.HasField("split") and not split.has(row, config.split):
                continue
            kept = filters.keep(row, config.filters, self._plan.excluded)
            yield beam_metrics.row(gone.scrubbed(kept) if isinstance(kept, Reject) else kept)


def _together(plan: Plan) -> list[tuple[str, ...]]:
    """Group small annotation files into one element: HowTo100M may have a million files."""
    if len(units(plan.source, plan.annotations)) == 1:
        return [plan.annotations]
    groups: list[list[str]] = []
    room = 0
    for path, file in zip(plan.annotations, plan.annotation_files, strict=True):
        if not groups or file.bytes > room:
            groups.append([])
            room = _BYTES_TOGETHER
        groups[-1].append(path)
        room -= file.bytes
    return [tuple(group) for group in groups]


def _list_videos(
    videos: str, num_shards: int, folder: str
) -> Iterator[tuple[int, row_spill.Place]]:
    """Yield (shard, location of video files) for all files that `videos` may refer to."""
    for batch in row_spill.write_videos(video_lookup.listing(videos), num_shards, folder):
        yield batch.shard, batch.place


class _BuildShard(beam.DoFn):
    """DoFn of shard.build_shard, with English pipeline and video map loaded once per process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def setup(self) -> None:
        software_versions.check(self._plan)
        self._parser = NounParser(self._plan.spacy_model, self._plan.config.prompt_templates)
        self._lookup = VideoLookup(self._plan.videos, self._plan.video_map)

    def process(self, element: tuple[int, Iterable[row_spill.Place]]) -> Iterable[ShardOutcome]:
        shard, places = element[0], [*element[1]]
        requests = row_spill.requests(self._plan.out, places)
        watch = beam_metrics.ShardWatch()
        lookup = self._lookup
        if self._plan.list_videos:
            lookup = lookup.among(row_spill.videos(self._plan.out, places))
        outcome = build_shard(shard, requests, self._plan, self._parser, lookup, watch.decoded)
        watch.ended(outcome)
        yield outcome


def write_manifest(
    plan: Plan,
    rows: int,
    rejects: list[tuple[str, int, row_spill.Place]],
    outcomes: list[ShardOutcome],
) -> None:
    """Check that every row is accounted for, then write plan.json and the manifest.

    No manifest is written if there are no records.

    Args:
      plan: the plan of the build.
      rows: number of rows of all annotation files.
      rejects: fields of row_spill.Rejects, in any order.
      outcomes: outcomes of all shards, in any order.

    Raises:
      LostRowsError: a row is not accounted for, or a shard is missing.
    """
    outcomes = sorted(outcomes, key=lambda outcome: outcome.shard)
    if [outcome.shard for outcome in outcomes] != list(range(plan.config.num_shards)):
        raise LostRowsError(
            f"only {len(outcomes)} of {plan.config.num_shards} shards were built; {_REPORT}"
        )
    by_reason: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        by_reason.update(outcome.rejects)
        _account(
            f"shard {outcome.shard}",
            outcome.rows,
            outcome.entry.records,
            sum(outcome.rejects.values()),
        )

    gone = redaction_of(plan.removed)

    def counted() -> Iterator[Reject]:
        for _, _, place in sorted(rejects):
            for reject in row_spill.rejects(plan.out, place):
                by_reason[reject.reason] += 1
                yield gone.hidden(reject)

    plan_file = plan_summary.write(plan.out, rows, counted(), plan.plan_name)
    records = sum(outcome.entry.records for outcome in outcomes)
    _account("the annotations", rows, records, by_reason.total())
    if records:
        manifest = _manifest(plan, rows, by_reason, plan_file, outcomes)
        if plan.base:
            other_increments.share(plan)
            manifest = other_increments.joined(plan, manifest)
        snapshot.write_manifest(plan.out, manifest)


def _manifest(
    plan: Plan,
    rows: int,
    rejects: Mapping[str, int],
    plan_file: FileEntry,
    outcomes: list[ShardOutcome],
) -> Manifest:
    annotations = redaction_of(plan.removed).annotations(plan.annotation_files)
    return Manifest(
        schema_version=contract.SCHEMA_VERSION,
        data_version=plan.data_version,
        dataset=plan.source,
        inputs_sha256=snapshot.inputs_sha256(
            annotations, (outcome.videos_sha256 for outcome in outcomes)
        ),
        config_sha256=plan.config_sha256,
        config=plan.config,
        versions=plan.versions,
        annotations=annotations,
        counts=Counts(rows=rows, records=sum(o.entry.records for o in outcomes), rejects=rejects),
        shards=[outcome.entry for outcome in outcomes],
        plan=plan_file,
        removed_videos=sorted(plan.removed),
    )


def _account(what: str, rows: int, records: int, rejects: int) -> None:
    if rows != records + rejects:
        raise LostRowsError(
            f"{what}: {rows} rows are not {records} records + {rejects} rejects; {_REPORT}"
        )
