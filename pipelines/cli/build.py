"""The command `build`: from arguments to plans, and from plans to snapshots."""

import argparse
import contextlib
import dataclasses
import difflib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.cli import engine, sandbox_messages, tag_commands
from pipelines.cli.commands import PROGRAM, CommandError, UsageError
from pipelines.formatting import format_bytes, format_counts
from pipelines.messages import say, warn

_JPEG_QUALITY = 95  # default of --jpeg-quality

# From the plan of all rows, their number and the arguments to (plan of a snapshot, its rows).
Parts = Callable[[Any, int, argparse.Namespace], list[tuple[Any, int]]]


def build(
    arguments: argparse.Namespace,
    rest: Sequence[str],
    parser: argparse.ArgumentParser,
    parts: Parts | None = None,
) -> int:
    """Build snapshots from annotation files; return the exit code.

    Args:
      arguments: the command's arguments.
      rest: options for Beam.
      parser: the command's parser, for suggestions.
      parts: makes the plan of each snapshot from the plan of all rows; None: as --split states.
    """
    began = time.monotonic()
    for word in rest:
        options = [option for option in parser._option_string_actions if option.startswith("--")]
        if close := difflib.get_close_matches(word.partition("=")[0], options, n=1, cutoff=0.8):
            parser.error(f"unrecognised argument {word}: did you mean {close[0]}?")
    refuse_contradictions(arguments)
    if rest:  # Fail before anything is read or written.
        _refuse_local(arguments, engine.choose(arguments.workers, rest)[0])

    if not rest or not isinstance(engine.choose(arguments.workers, rest)[0], str):  # a local runner
        sandbox_messages.check(arguments.decoder, arguments.require_sandbox)
    with usable_inputs(arguments):
        return _build_planned(arguments, rest, parts or _parts, began)


def _build_planned(
    arguments: argparse.Namespace, rest: Sequence[str], make_parts: Parts, began: float
) -> int:
    from pipelines.cli import filter_arguments
    from pipelines.planning import plan

    planned, rows = make_plan(arguments)
    parts = make_parts(planned, rows, arguments)
    size = sum(plan.projected_bytes(of_part, part.config) for part, of_part in parts)
    built = [plan.complete(part) for part, _ in parts]
    if not all(built) and size > arguments.max_size:
        raise CommandError(
            f"the snapshot of about {rows:,} rows will have about {format_bytes(size)}, more than "
            f"--max-size {format_bytes(arguments.max_size)}: raise --max-size, or reduce the size: "
            "lower --short-side or --frames, --square, --encoding jpeg, --jpeg-quality 85"
        )
    for part, _ in parts:
        tag_commands.check(arguments, part.out, part.base or part.previous)
    for (part, of_part), manifest in zip(parts, built, strict=True):
        _build_part(part, of_part, manifest, arguments, rest, began)
        began = time.monotonic()
    for part, _ in parts if arguments.tag else ():
        if plan.complete(part):
            tag_commands.advance(arguments, part.out, part.base or part.previous)
        else:
            say(f"{arguments.command}: run svilm-pipelines tag once the version is complete")
    if planned.excluded and not all(built) and all(plan.complete(part) for part, _ in parts):
        removed = frozenset[str]().union(*(part.removed for part, _ in parts))
        plans = [(part.out, part.plan_name) for part, _ in parts]
        if caution := filter_arguments.unmatched(planned.excluded, removed, plans):
            warn(f"{PROGRAM}: warning: {caution}")
    return 0


def _parts(planned, rows: int, arguments: argparse.Namespace):
    """Return the plan of each snapshot to build and its number of rows."""
    from pipelines.planning import plan
    from pipelines.snapshots import split
    from pipelines.storage import storage

    if not arguments.split:
        return [(_checked(planned, arguments.shards), rows)]
    if storage.exists(os.path.join(planned.out, "manifest.json")):
        raise CommandError(
            f"--out {arguments.out!r} already contains a snapshot: choose another folder for "
            "--split"
        )
    parts = []
    seed = arguments.split_seed or 0
    for of_all, share in zip(split.splits(arguments.split, seed), arguments.split, strict=True):
        config = type(planned.config)()
        config.CopyFrom(planned.config)
        config.split.CopyFrom(of_all)
        of_part = round(rows * share)
        if not arguments.shards:
            config.num_shards = plan.default_shards(plan.projected_bytes(of_part, config))
        part = dataclasses.replace(
            planned,
            config=config,
            out=os.path.join(planned.out, of_all.part),
            previous=planned.previous and os.path.join(planned.previous, of_all.part),
        )
        parts.append((_checked(part, arguments.shards), of_part))
    return parts


def _checked(planned, shards: int | None):
    """Return `planned` with the removed videos of the previous version, which is checked first."""
    from pipelines.planning import plan
    from pipelines.snapshots import increments, redaction, snapshot, verify

    if not planned.previous:
        return planned
    manifest = verify.read_manifest(planned.previous)
    planned = dataclasses.replace(
        planned, removed=redaction.removed_videos(planned.previous, manifest)
    )
    if manifest.increments:  # Only the increment with the given annotations is built again.
        number, increment = increments.with_annotations(
            planned.previous, manifest, planned.annotation_files
        )
        increments.check_names(planned.previous, manifest)
        if not shards:
            planned.config.num_shards = increment.manifest.config.num_shards
        planned = dataclasses.replace(
            planned,
            base=planned.previous,
            base_sha256=snapshot.manifest_sha256(planned.previous),
            increment=number,
        )
        manifest = increment.manifest
    plan.check_previous(planned, manifest)
    return planned


def _build_part(
    planned,
    rows: int,
    manifest,
    arguments: argparse.Namespace,
    rest: Sequence[str],
    began: float,
) -> None:
    """Build one snapshot, unless `manifest` shows that it is already complete."""
    from pipelines.building import row_spill
    from pipelines.planning import plan
    from pipelines.snapshots import increments, run_lock, snapshot, verify
    from protos import contract

    name = arguments.command
    where = planned.out if arguments.split else arguments.out
    if manifest:
        row_spill.remove(planned.out)  # A killed build may have left captions behind.
        run_lock.clear(planned.out)
        print(
            f"{name}: {where} is already complete ({format_counts(manifest.counts)}). --videos and "
            "--video-map were not read. `svilm-pipelines verify` checks its files"
        )
        return
    config = planned.config
    files = {planned.plan_name, *snapshot.shard_files(planned.stems)}
    if planned.base:
        files |= increments.file_names(verify.read_manifest(planned.base))
    with run_lock.held(planned.out):
        snapshot.clear_unfinished(planned.out, files)
        say(
            f"{name}: about {rows:,} rows into {config.num_shards:,} shards, "
            f"about {format_bytes(plan.projected_bytes(rows, config))} if no video is missing"
        )
        launched = time.time()
        result = engine.run(planned, arguments.workers, rest)
        if result is None:
            print(
                f"{name}: the job is submitted; {planned.out}/{contract.MANIFEST_NAME} will exist "
                "once it is complete"
            )
            return
        manifest = plan.complete(planned)
        counts = _counts(planned, manifest)
    if not counts.records:
        _print_rejects(planned, counts, name)
        other = ", or choose another --split-seed" if arguments.split else ""
        raise CommandError(
            f"the snapshot is incomplete because every row was rejected ({format_counts(counts)}): "
            f"read the rejects in {os.path.join(planned.out, planned.plan_name)} and "
            f"shard-*.json{other}"
        )
    seconds = time.monotonic() - began
    print(f"{name}: {format_counts(counts)}, {seconds:.1f} s → {where}")
    if totals := engine.totals(result):
        print(f"{name}: {_pace(totals, launched)}")
        print(f"{name}: {sandbox_messages.summary(totals.unconfined)}")
    _print_rejects(planned, counts, name)


def _counts(planned, manifest):
    """Return the counts of the increment that was built, or of the whole snapshot if it has one."""
    from pipelines.snapshots import records

    if manifest and not planned.base:
        return manifest.counts
    return records.counts(planned.out, planned.stems, planned.plan_name)


def _print_rejects(planned, counts, name: str) -> None:
    """Print an example and a hint for each reject reason."""
    from pipelines.cli import reject_examples

    config = planned.config
    for line in reject_examples.lines(
        planned.out,
        planned.stems,
        planned.plan_name,
        counts.rejects,
        planned.source,
        config.source.time_unit,
    ):
        say(f"{name}: rejects: {line}")


@contextlib.contextmanager
def usable_inputs(arguments: argparse.Namespace) -> Iterator[None]:
    """Copy what comes through pipes to files, for as long as the command runs."""
    from pipelines.sources import annotation_file

    given = {
        "annotations": arguments.annotations,
        "exclude": arguments.exclude,
        "video_map": [arguments.video_map] if arguments.video_map else [],
    }
    with contextlib.ExitStack() as copies:
        for name, paths in given.items():
            usable = copies.enter_context(annotation_file.spooled(paths))
            setattr(arguments, name, usable)
        arguments.video_map = "".join(arguments.video_map)
        yield


def _pace(totals, launched: float) -> str:
    """Format the clips, bytes, shards and throughput of this run, with start-up time separate."""
    reused = f" ({totals.reused:,} reused)" if totals.reused else ""
    return (
        f"{totals.records:,} clips, {format_bytes(totals.bytes)} in {totals.built:,} "
        f"shards{reused}, "
        f"{totals.records / max(totals.ended - totals.began, 1e-3):,.2f} clips/s after "
        f"{max(totals.began - launched, 0):.1f} s of start-up"
    )


def refuse_contradictions(arguments: argparse.Namespace) -> None:
    """Raise UsageError if two options contradict each other."""
    from pipelines.cli import filter_arguments, source_arguments

    refused = source_arguments.refusal(arguments) or filter_arguments.refusal(arguments)
    if arguments.split_seed is not None and not arguments.split:
        refused = "--split-seed has no effect without --split: add --split or remove it"
    if arguments.split and arguments.tag:
        refused = "--tag does not apply to --split, which makes several snapshots: remove it"
    if arguments.jpeg_quality and arguments.encoding != "jpeg":
        refused = (
            f"--jpeg-quality does not apply to --encoding {arguments.encoding}, which is lossless: "
            "remove it"
        )
    if refused:
        raise UsageError(refused)


def make_plan(arguments: argparse.Namespace):
    """Return the plan and its approximate number of rows."""
    from pipelines.building import nouns, software_versions
    from pipelines.cli import filter_arguments, source_arguments
    from pipelines.planning import filters, plan
    from pipelines.storage import storage
    from protos import contract
    from protos.v1.manifest_pb2 import BuildConfig, Filters, SourceOptions

    options = SourceOptions(**source_arguments.given(arguments))
    survey = plan.survey(arguments.source, tuple(arguments.annotations), options)
    for caution in survey.cautions:
        warn(f"{PROGRAM}: warning: {caution}")
    plan.check_videos(arguments.videos, arguments.video_map, arguments.list_videos)
    excluded = plan.read_exclusions(tuple(arguments.exclude))
    model = arguments.spacy_model or nouns.default_model()
    encoding, jpeg = contract.FRAME_ENCODINGS[arguments.encoding], arguments.encoding == "jpeg"
    config = BuildConfig(
        frames_per_clip=arguments.frames,
        short_side=arguments.short_side,
        frame_encoding=encoding,
        jpeg_quality=(arguments.jpeg_quality or _JPEG_QUALITY) if jpeg else 0,
        prompt_templates=contract.PROMPT_TEMPLATES,
        source=options,
        filters=Filters(
            **filter_arguments.given(arguments), excluded_sha256=filters.ids_sha256(excluded)
        ),
        max_past_end_share=arguments.max_past_end,
        square=arguments.square,
    )
    size = plan.projected_bytes(survey.rows, config)
    config.num_shards = arguments.shards or plan.default_shards(size)
    planned = plan.Plan(
        source=arguments.source,
        annotations=tuple(storage.absolute(path) for path in survey.paths),
        annotation_files=survey.files,
        videos=storage.absolute(arguments.videos),
        out=storage.absolute(arguments.out),
        data_version=arguments.data_version,
        config=config,
        excluded=excluded,
        video_map=storage.absolute(arguments.video_map) if arguments.video_map else "",
        versions=software_versions.here(model, encoding, arguments.decoder),
        list_videos=arguments.list_videos,
        spacy_model=model,
        decoder=arguments.decoder,
        decode_seconds=arguments.decode_timeout,
        require_sandbox=arguments.require_sandbox,
        max_failures=arguments.max_failures,
        max_video_bytes=int(arguments.max_video_size),
        previous=storage.absolute(arguments.retry_rejects) if arguments.retry_rejects else "",
    )
    return planned, survey.rows


def _refuse_local(arguments: argparse.Namespace, runner) -> None:
    from pipelines.building import dataflow

    if runner != dataflow.RUNNER:
        return
    paths = {
        "--annotations": arguments.annotations,
        "--videos": [arguments.videos],
        "--video-map": [arguments.video_map] if arguments.video_map else [],
        "--retry-rejects": [arguments.retry_rejects] if arguments.retry_rejects else [],
        "--out": [arguments.out],
    }
    dataflow.refuse_local(paths)
