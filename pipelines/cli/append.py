"""The command `append`: a build of one increment, with the options of the earlier version."""

import argparse
import dataclasses
from collections.abc import Sequence

from pipelines.cli import build
from pipelines.cli.commands import CommandError, UsageError
from pipelines.messages import say

# Fields of SourceOptions that define a clip. An append of the same source must not differ in them.
# The other fields describe the annotation files.
_OF_CLIPS = ("paragraphs", "widen_to_us", "window_us", "stride_us", "keep_empty_captions")


def append(
    arguments: argparse.Namespace, rest: Sequence[str], parser: argparse.ArgumentParser
) -> int:
    """Append annotation files to a snapshot; return the exit code.

    Args:
      arguments: the command's arguments.
      rest: options for Beam.
      parser: the parser of `build`, for suggestions.
    """
    from pipelines.snapshots import increments, verify
    from pipelines.storage import storage

    manifest = verify.read_manifest(arguments.snapshot)
    _inherit(arguments, manifest)
    version = manifest.data_version
    if storage.absolute(arguments.snapshot) != storage.absolute(arguments.out):
        version = increments.next_minor(version)
    arguments.data_version = arguments.data_version or version
    return build.build(arguments, rest, parser, parts=_parts)


def _inherit(arguments: argparse.Namespace, manifest) -> None:
    """Set all options that were not given to those of the snapshot."""
    from pipelines.cli import filter_arguments, source_arguments
    from pipelines.decoding import frame_codec
    from pipelines.snapshots import increments
    from protos.v1.manifest_pb2 import SourceOptions

    config = manifest.config
    values = {
        "frames": config.frames_per_clip,
        "short_side": config.short_side,
        "square": config.square,
        "encoding": frame_codec.name(config.frame_encoding),
        "max_past_end": config.max_past_end_share,
        "decoder": "ffmpeg" if "ffmpeg" in manifest.versions else "pyav",
        "spacy_model": manifest.versions.get("spacy_model", "").partition(" ")[0] or None,
        **{field: getattr(config.filters, field) for field in filter_arguments.FIELDS},
    }
    for name, value in values.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.jpeg_quality is None and arguments.encoding == "jpeg":
        arguments.jpeg_quality = config.jpeg_quality or None
    sources = [
        part.manifest.config.source
        for part in increments.split(manifest)
        if part.manifest.dataset == arguments.source
    ]
    last = sources[-1] if sources else SourceOptions()
    for field in source_arguments.FIELDS:
        value = getattr(last, field)
        if field == "columns":
            value = [*value.items()]
        if value and not hasattr(arguments, field):
            setattr(arguments, field, value)
        elif sources and field in _OF_CLIPS and getattr(arguments, field, value) != value:
            _refuse_source_options(arguments, last, field)


def _refuse_source_options(arguments: argparse.Namespace, last, field: str) -> None:
    from pipelines.snapshots import build_options

    given = type(last)(**{field: getattr(arguments, field)})
    old = type(last)(**{field: getattr(last, field)})
    (change,) = build_options.changes(build_options.chosen(old), build_options.chosen(given))
    raise UsageError(
        f"{arguments.snapshot!r} has other clips of {arguments.source} ({change}): remove the "
        "option, or build another snapshot"
    )


def _parts(planned, rows: int, arguments: argparse.Namespace):
    """Return the plan of the new increment and its number of rows, in a list."""
    from pipelines.planning import plan
    from pipelines.snapshots import increments, redaction, snapshot, split, verify
    from pipelines.storage import storage

    base = storage.absolute(arguments.snapshot)
    manifest = verify.read_manifest(base)
    increments.check_names(base, manifest)
    config = planned.config
    if not arguments.shards:
        config.num_shards = -(-plan.projected_bytes(rows, config) // plan.SHARD_BYTES) or 1
    if manifest.config.HasField("split"):
        config.split.CopyFrom(manifest.config.split)
        say(
            f"{arguments.command}: {base} is a part of a split ({split.described(config.split)}): "
            "rows of videos in other parts are left out; append the same files to each part"
        )
    planned = dataclasses.replace(
        planned,
        base=base,
        base_sha256=snapshot.manifest_sha256(base),
        increment=len(increments.split(manifest)),
        removed=redaction.removed_videos(base, manifest),
    )
    if planned.out == base and manifest.increments:
        last = increments.split(manifest)[-1]
        if list(planned.annotation_files) == [*last.manifest.annotations]:
            # The same command has moved the tag to its new version already.
            number = planned.increment - 1
            done = dataclasses.replace(planned, base_sha256=last.previous_sha256, increment=number)
            return [(done, rows)]
    if f"{planned.out}/".startswith(f"{base}/"):
        raise CommandError(
            f"--out {planned.out!r} is in the earlier version {base!r}, which must stay unchanged: "
            "choose another folder"
        )
    plan.check_append(planned, manifest)
    return [(planned, rows)]
