"""The plan of a build, fixed before anything is decoded: inputs, configuration and shards."""

import collections
import dataclasses
import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence

from pipelines.errors import UserError
from pipelines.planning import filters, video_lookup
from pipelines.snapshots import build_options, increments, snapshot
from pipelines.snapshots.redaction import Redaction
from pipelines.sources import SOURCES, annotation_file, parquet
from pipelines.sources.annotation_checks import cautions
from pipelines.sources.clip_fields import is_text
from pipelines.sources.clip_request import AnnotationError, ClipRequest, RowError
from pipelines.sources.source import CautiousSource, CombinedSource, StreamedSource
from pipelines.storage import storage
from protos import contract
from protos.v1.clip_pb2 import (
    FRAME_ENCODING_JPEG,
    FRAME_ENCODING_PNG,
    FRAME_ENCODING_RAW,
)
from protos.v1.manifest_pb2 import (
    AnnotationFile,
    BuildConfig,
    Manifest,
    Reject,
    SourceOptions,
)
from protos.video_id import video_key

# The version is part of every fingerprint. Increase it when a code change alters the written bytes.
PIPELINE_VERSION = "4"

SHARD_BYTES = 256 << 20  # target size of a shard
FEWEST_SHARDS = 16  # minimum number of default shards, to occupy several workers

_ROWS_TRIED = 1000  # number of first rows that are checked before the build
_NAMED = 20  # maximum number of listed differences of each kind
_WHOLE_BYTES = 1 << 30  # maximum size of an annotation file that is read at once
_FORM_REASONS = {
    "row_not_utf8",
    "row_too_long",
    "row_columns",
    "row_quote",
    "row_stray_quote",
    "row_carriage_return",
    "row_too_deep",
    "list_lengths",
    "video_id_invalid",
    "time_invalid",
}


class PlanError(UserError, ValueError):
    """Inputs or options with which no snapshot can be built."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of one build, passed to every work item."""

    source: str  # a key of SOURCES
    annotations: tuple[str, ...]  # paths
    annotation_files: tuple[AnnotationFile, ...]
    videos: str  # folder or path template
    out: str  # folder of the snapshot
    data_version: str
    config: BuildConfig
    versions: dict[str, str]
    spacy_model: str
    decoder: str  # a key of video.DECODERS
    decode_seconds: float  # timeout of a decoder
    max_failures: float = 1.0  # maximum share of a shard's rows that may fail to decode
    max_video_bytes: int = 4_000_000_000  # maximum size of a video that is fetched from a bucket
    previous: str = ""  # folder of the earlier version whose failed rows are retried, if any
    excluded: frozenset[str] = frozenset()  # video ids and their keys
    removed: frozenset[str] = frozenset()  # video ids that were taken down from `previous`
    video_map: str = ""  # file of video ids and paths, if any
    list_videos: bool = False  # list the bucket once instead of one request for each video
    require_sandbox: bool = False  # decode nothing if a sandbox layer is missing
    base: str = ""  # folder of the earlier version whose other increments are shared, if any
    base_sha256: str = ""  # sha256 of its manifest.json
    increment: int = 0  # number of the increment that is built; 0 is that of a build

    @property
    def config_sha256(self) -> str:
        """The sha256 of the configuration and versions, which determine the bytes."""
        return snapshot.config_sha256(self.config, self.versions)

    @property
    def plan_name(self) -> str:
        """The name of the file of the rejects of planning."""
        return contract.plan_name(self.increment)

    def stem(self, shard: int) -> str:
        """Return the stem of the file names of one of the planned shards."""
        return contract.shard_name(shard, self.config.num_shards, self.increment)

    @property
    def stems(self) -> list[str]:
        """The stems of the file names of all planned shards."""
        return [*map(self.stem, range(self.config.num_shards))]


@dataclasses.dataclass(frozen=True)
class Survey:
    """A summary of the annotation files."""

    paths: tuple[str, ...]
    files: tuple[AnnotationFile, ...]
    rows: int  # number of rows, estimated for large files
    cautions: tuple[str, ...]  # warnings for the user, one line each


def survey(source: str, paths: tuple[str, ...], options: SourceOptions) -> Survey:
    """Read the first rows of each annotation file and compute its checksum.

    Args:
      source: a key of SOURCES.
      paths: files, or folders of files.
      options: options of the source.

    Raises:
      PlanError: a file is missing, is empty, or does not have the source's form.
      AnnotationError: a file is an archive or not UTF-8.
    """
    expanded = [_expand(path) for path in paths]
    paths = tuple(file for files, _ in expanded for file in files)
    left_out = [caution for _, caution in expanded if caution]
    names = [storage.name(path) for path in paths]
    for name in names:
        if not is_text(name):
            raise PlanError(f"--annotations {name!r}: the file name is not UTF-8: rename the file")
    if twice := {name for name, count in collections.Counter(names).items() if count > 1}:
        raise PlanError(
            f"two annotation files are named {min(twice)!r}, but file names must be unique: "
            "rename one"
        )
    found = [_annotation_file(path) for path in paths]
    captions, rows, left_out_columns = [], 0, []
    reader = SOURCES[source]
    if isinstance(reader, CombinedSource):
        _check_sizes(source, found)
        first, rows = _first_of_all(source, paths, options)
        captions += [row.caption for row in first if isinstance(row, ClipRequest)]
    else:
        for path, file in zip(paths, found, strict=True):
            if isinstance(reader, CautiousSource):
                with annotation_file.open_to_read(path) as opened:
                    left_out_columns += reader.cautions(opened, file.name, options)
            first, read_bytes = _first_rows(source, reader, path, options)
            rows += _rows(path, len(first), read_bytes, file.bytes)
            if len(captions) < _ROWS_TRIED:
                captions += [row.caption for row in first if isinstance(row, ClipRequest)]
    warnings = (*left_out, *left_out_columns, *cautions(source, names, captions))
    return Survey(paths, tuple(found), rows, warnings)


def _annotation_file(path: str) -> AnnotationFile:
    digest, size = hashlib.sha256(), 0
    try:
        with storage.open_to_read(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise PlanError(_unreadable("--annotations", path, error)) from None
    return AnnotationFile(name=storage.name(path), bytes=size, sha256=digest.hexdigest())


def units(source: str, paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Group annotation files into units to read: all together or each alone, as the source needs.

    >>> units("videocc", ["a.csv", "b.csv"]), units("msrvtt", ["a.json", "a.csv"])
    ([('a.csv',), ('b.csv',)], [('a.json', 'a.csv')])
    """
    combined = isinstance(SOURCES[source], CombinedSource)
    return [tuple(paths)] if combined else [(path,) for path in paths]


def read_rows(
    paths: Sequence[str], source: str, options: SourceOptions
) -> Iterator[ClipRequest | Reject]:
    """Yield the rows of one of the `units` of annotation files, in order."""
    reader = SOURCES[source]
    if isinstance(reader, CombinedSource):
        files = {}
        for path in paths:
            files[storage.name(path)] = annotation_file.read(path, _WHOLE_BYTES)
        yield from reader.read_all(files, options)
        return
    (path,) = paths
    with annotation_file.open_to_read(path) as file:
        yield from reader.read(file, storage.name(path), options)


def _check_sizes(source: str, files: Sequence[AnnotationFile]) -> None:
    for file in files:
        if file.bytes > _WHOLE_BYTES:
            raise PlanError(
                f"--annotations {file.name!r} has {file.bytes:,} bytes, more than the maximum "
                f"{_WHOLE_BYTES:,} of {source}: check that it is the right file"
            )


def _first_of_all(
    source: str, paths: Sequence[str], options: SourceOptions
) -> tuple[list[ClipRequest | Reject], int]:
    """Return the first rows of files that are read together, and their total number of rows."""
    rows = read_rows(paths, source, options)
    first = _first(source, ", ".join(repr(path) for path in paths), rows)
    return first, len(first) + sum(1 for _ in rows)


def _expand(path: str) -> tuple[list[str], str]:
    """Return the files of a path, and a warning about what is left out of a folder, if any."""
    try:
        found, left_out = storage.expand(path)
    except OSError as error:
        raise PlanError(_unreadable("--annotations", path, error)) from None
    named = ", ".join(map(repr, left_out[:_NAMED]))
    more = f" and {len(left_out) - _NAMED:,} more" if left_out[_NAMED:] else ""
    caution = f"--annotations {path!r}: skipped in this folder: {named}{more}" if left_out else ""
    if not found:
        if caution:
            raise PlanError(f"{caution}: no file is left: name the files instead of the folder")
        raise PlanError(f"--annotations {path!r} is an empty folder: name another")
    return found, caution


def _unreadable(option: str, path: str, error: OSError) -> str:
    return f"{option} {path!r}: {error.strerror}: check that it exists and is readable"


def _first_rows(
    source: str, reader: StreamedSource, path: str, options: SourceOptions
) -> tuple[list[ClipRequest | Reject], int]:
    """Return a file's first rows and the number of bytes read for them."""
    with annotation_file.open_to_read(path) as file:
        rows = reader.read(file, storage.name(path), options)
        first = _first(source, repr(path), rows)
        read_bytes = annotation_file.position(file)
    return first, read_bytes


def _first(
    source: str, files: str, rows: Iterator[ClipRequest | Reject]
) -> list[ClipRequest | Reject]:
    """Return the first rows, or raise PlanError if the annotations have another form."""
    first: list[ClipRequest | Reject] = []
    try:
        first.extend(itertools.islice(rows, _ROWS_TRIED))
    except AnnotationError as error:
        form = f": {source} requires {SOURCES[source].FORM}" if not first else ""
        raise PlanError(f"--annotations {files}: {error}{form}") from None
    _check_form(source, files, first)
    return first


def _check_form(source: str, files: str, first: Sequence[ClipRequest | Reject]) -> None:
    """Raise PlanError if there are no rows or none of them has the source's form."""
    form = SOURCES[source].FORM
    if not first:
        raise PlanError(f"--annotations {files} has no rows: {source} requires {form}")
    bad = [row for row in first if isinstance(row, Reject) and row.reason in _FORM_REASONS]
    if len(bad) == len(first):
        raise PlanError(
            f"--annotations {files} is not in the format of {source} ({bad[0].source_row}: "
            f"{bad[0].message}): give {form}"
        )


def _rows(path: str, first: int, read_bytes: int, size: int) -> int:
    """Return a file's number of rows: exact for Parquet, else extrapolated from the first rows."""
    if path.endswith(".parquet"):
        with storage.open_to_read(path) as file:
            return parquet.count(file)
    if first < _ROWS_TRIED:
        return first
    return round(first * size / read_bytes)


def read_exclusions(paths: tuple[str, ...]) -> frozenset[str]:
    """Return the video ids in files with one id a line, together with the key of each.

    Raises:
      PlanError: a file cannot be read or is not text.
    """
    try:
        ids = filters.read_ids(paths)
        return ids | set(map(video_key, ids))
    except OSError as error:
        raise PlanError(_unreadable("--exclude", error.filename, error)) from None
    except RowError as error:
        raise PlanError(
            f"--exclude is not a list of video ids: {error}: give text files with one id per line"
        ) from None


def check_videos(videos: str, map_path: str, listed: bool) -> None:
    """Check that the video folder is not empty and that the video map can be read.

    Args:
      videos: the folder or template.
      map_path: path of the file of ids and paths; empty for none.
      listed: whether the bucket of `videos` will be listed.

    Raises:
      PlanError: the folder, template or map is unusable. The message names it.
    """
    try:
        folder, template = video_lookup.split(videos)
    except ValueError as error:
        raise PlanError(f"--videos {videos!r}: {error}") from None
    if listed and (map_path or not storage.in_bucket(folder)):
        raise PlanError(
            "--list-videos does not apply to --video-map: remove one of them"
            if map_path
            else f"--list-videos does not apply to --videos {folder!r}, which is not a bucket: "
            "remove it"
        )
    try:
        if storage.is_empty(folder):
            raise PlanError(f"--videos {folder!r} is an empty folder: name another")
    except OSError as error:
        raise PlanError(_unreadable("--videos", folder, error)) from None
    if not map_path:
        return
    if template != video_lookup.IN_A_FOLDER:
        raise PlanError(
            f"--video-map does not apply to the template --videos {videos!r}: name a folder"
        )
    try:
        video_lookup.read_map(map_path)
    except OSError as error:
        raise PlanError(_unreadable("--video-map", map_path, error)) from None
    except RowError as error:
        raise PlanError(
            f"--video-map {map_path!r} is not a video map: {error}: give a CSV file with the "
            "columns video_id and path"
        ) from None


def complete(plan: Plan) -> Manifest | None:
    """Return the manifest of the planned snapshot if --out already holds it, else None.

    Raises:
      PlanError: --out holds another complete snapshot, which is left unchanged.
    """
    path = os.path.join(plan.out, contract.MANIFEST_NAME)
    if not storage.exists(path):
        return None
    manifest = snapshot.read_json(path, Manifest)
    if manifest.data_version != plan.data_version:
        raise PlanError(_holds_another(plan, "data version"))
    parts = increments.split(manifest)
    if plan.increment >= len(parts) or bool(plan.base) != (len(parts) > 1):
        raise PlanError(_holds_another(plan, f"number of increments ({len(parts)})"))
    part = parts[plan.increment]
    of_append = plan.increment and not plan.previous
    if of_append and (plan.increment < len(parts) - 1 or part.previous_sha256 != plan.base_sha256):
        raise PlanError(_holds_another(plan, "earlier version"))
    if what := difference(part.manifest, plan):
        raise PlanError(_holds_another(plan, what))
    if frozenset(manifest.removed_videos) != plan.removed:
        raise PlanError(_holds_another(plan, "list of removed videos"))
    return manifest


def _holds_another(plan: Plan, what: str) -> str:
    return (
        f"--out {plan.out!r} already contains a complete snapshot with another {what}: "
        "choose another folder"
    )


def difference(manifest: Manifest, plan: Plan) -> str | None:
    """Return how a snapshot differs from the plan, if it does, apart from the data version."""
    gone = Redaction(manifest.removed_videos)
    old, new = gone.annotations(manifest.annotations), gone.annotations(plan.annotation_files)
    if manifest.dataset != plan.source:
        return f"source ({manifest.dataset}, not {plan.source})"
    parts = {
        "annotations": build_options.changed_files(old, new) if old != new else [],
        "configuration": build_options.changes(
            build_options.chosen(manifest.config), build_options.chosen(plan.config)
        ),
        "software": build_options.changes(dict(manifest.versions), plan.versions),
    }
    if manifest.config != plan.config and not parts["configuration"]:
        parts["configuration"] = ["a field of another release"]
    found = [f"{what} ({'; '.join(each[:_NAMED])})" for what, each in parts.items() if each]
    return " and another ".join(found) or None


def check_previous(plan: Plan, manifest: Manifest) -> None:
    """Check that --retry-rejects can continue from an earlier version.

    Raises:
      PlanError: options or inputs differ, or the new data version is not later.
    """
    if what := difference(manifest, plan):
        raise PlanError(
            f"--retry-rejects {plan.previous!r} was built with another {what}: "
            "give the same options and annotations, or build without --retry-rejects"
        )
    if not snapshot.is_later(plan.data_version, manifest.data_version):
        raise PlanError(
            f"--data-version {plan.data_version} is not higher than {manifest.data_version}, the "
            f"version of --retry-rejects {plan.previous!r}: give a higher --data-version"
        )


def check_append(plan: Plan, manifest: Manifest) -> None:
    """Check that a plan can append to a snapshot.

    Args:
      plan: the plan of the append.
      manifest: the manifest of the earlier version.

    Raises:
      PlanError: options or software differ, the new data version is not later, or an annotation
        file has the name of an earlier one.
    """
    old, new = BuildConfig(), BuildConfig()
    old.CopyFrom(manifest.config)
    new.CopyFrom(plan.config)
    for config in (old, new):  # Each increment has its own.
        config.ClearField("num_shards")
        config.ClearField("source")
    changes = build_options.changes(build_options.chosen(old), build_options.chosen(new))
    changes += build_options.changes(dict(manifest.versions), plan.versions)
    if changes or old != new:
        found = "; ".join(changes[:_NAMED]) or "a field of another release"
        raise PlanError(
            f"{plan.base!r} was built with other options or software than this append ({found}): "
            "give the same, or build the snapshot again"
        )
    if not snapshot.is_later(plan.data_version, manifest.data_version):
        raise PlanError(
            f"--data-version {plan.data_version} is not higher than {manifest.data_version}, the "
            f"version of {plan.base!r}: give a higher --data-version"
        )
    there = {file.name: file for file in manifest.annotations}
    for file in plan.annotation_files:
        if file == there.get(file.name):
            raise PlanError(
                f"--annotations {file.name!r} is a part of {plan.base!r} already, with the same "
                f"sha256 {file.sha256[:12]}…: leave it out"
            )
        if file.name in there:
            raise PlanError(
                f"--annotations {file.name!r}: {plan.base!r} has another annotation file of this "
                f"name, with sha256 {there[file.name].sha256[:12]}…, not {file.sha256[:12]}…: "
                "rename the file, as rejects name a row by its file"
            )


def projected_bytes(rows: int, config: BuildConfig) -> int:
    """Estimate a snapshot's size in bytes, for frames of 16:9 or square.

    The mean bytes per pixel are from real videos: JPEG 0.37 at quality 95 and 0.19 at 85, PNG 1.4,
    raw 3.

    >>> config = BuildConfig(frames_per_clip=32, short_side=256, jpeg_quality=95)
    >>> config.frame_encoding = FRAME_ENCODING_JPEG
    >>> round(projected_bytes(3_300_000, config) / 1e12, 1)
    4.7
    """
    bytes_a_pixel = {
        FRAME_ENCODING_JPEG: 0.19 * 2 ** ((config.jpeg_quality - 85) / 10),
        FRAME_ENCODING_PNG: 1.4,
        FRAME_ENCODING_RAW: 3.0,
    }
    pixels = config.short_side**2 * (1 if config.square else 16 / 9)
    return round(rows * config.frames_per_clip * pixels * bytes_a_pixel[config.frame_encoding])


def default_shards(projected: int) -> int:
    """Return the number of shards that makes each about SHARD_BYTES, at least FEWEST_SHARDS.

    Later versions of a data set should keep the number.

    >>> default_shards(100 << 30)
    400
    """
    return max(FEWEST_SHARDS, math.ceil(projected / SHARD_BYTES))
