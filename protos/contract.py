"""The contract between the stages: valid records, valid manifests and readable versions.

This is pure Python over the generated messages. Both stages import it, and it imports neither.
"""

from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, json_format
from google.protobuf.message import Message

from protos import strict_json
from protos.reading import reading
from protos.v1 import clip_pb2, manifest_pb2

SCHEMA_VERSION = "1.4"
INCREMENTS_VERSION = "1.5"  # of manifests with increments, and of tags

# Frame encodings by their names in options and messages.
FRAME_ENCODINGS = {
    "jpeg": clip_pb2.FRAME_ENCODING_JPEG,
    "png": clip_pb2.FRAME_ENCODING_PNG,
    "raw": clip_pb2.FRAME_ENCODING_RAW,
}

# The templates of the paper's Table 7, in its order.
PROMPT_TEMPLATES = (
    "A footage of a {}.",
    "A footage of the {}.",
    "A footage of one {}.",
    "A video of a {}.",
    "A video of the {}.",
    "A video of one {}.",
    "A portrait of a {}.",
    "A portrait of the {}.",
    "A portrait of one {}.",
    "A video footage of a {}.",
    "A video footage of the {}.",
    "A video footage of one {}.",
)

MANIFEST_NAME = "manifest.json"
PLAN_NAME = "plan.json"
SIGNATURE_NAME = "manifest.json.sig"  # optional, and in no manifest


M = TypeVar("M", bound=Message)


class ContractError(ValueError):
    """A record, manifest or version that breaks the contract between the stages."""


def shard_name(shard: int, num_shards: int, increment: int = 0) -> str:
    """Return the stem of a shard's file names.

    Args:
      shard: number of the shard in its increment.
      num_shards: number of shards of the increment.
      increment: 0 for the build, 1 for the first append.

    >>> shard_name(3, 16), shard_name(0, 2, increment=1)
    ('shard-00003-of-00016', 'shard-i00001-00000-of-00002')
    """
    of_increment = f"i{increment:05d}-" if increment else ""
    return f"shard-{of_increment}{shard:05d}-of-{num_shards:05d}"


def plan_name(increment: int = 0) -> str:
    """Return the name of the file of an increment's rejects of planning.

    >>> plan_name(), plan_name(1)
    ('plan.json', 'plan-i00001.json')
    """
    return f"plan-i{increment:05d}.json" if increment else PLAN_NAME


def shard_names(manifest: manifest_pb2.Manifest) -> list[str]:
    """Return the stem of each shard's file names, in the manifest's order.

    >>> from protos.v1.manifest_pb2 import Increment
    >>> one = manifest_pb2.Manifest(increments=[Increment(shards=1), Increment(shards=1)])
    >>> shard_names(one)
    ['shard-00000-of-00001', 'shard-i00001-00000-of-00001']
    """
    sizes = [one.shards for one in manifest.increments] or [len(manifest.shards)]
    return [
        shard_name(shard, num_shards, increment)
        for increment, num_shards in enumerate(sizes)
        for shard in range(num_shards)
    ]


def shard_name_of(manifest: manifest_pb2.Manifest, shard: int) -> str:
    """Return the stem of the file names of one shard, in time proportional to the increments.

    >>> from protos.v1.manifest_pb2 import Increment
    >>> two = manifest_pb2.Manifest(increments=[Increment(shards=3), Increment(shards=2)])
    >>> shard_name_of(two, 4)
    'shard-i00001-00001-of-00002'
    """
    for number, increment in enumerate(manifest.increments):
        if shard < increment.shards:
            return shard_name(shard, increment.shards, number)
        shard -= increment.shards
    return shard_name(shard, len(manifest.shards))


def datasets(manifest: manifest_pb2.Manifest) -> list[str]:
    """Return the names of the sources of a snapshot's increments, each once.

    >>> from protos.v1.manifest_pb2 import Increment
    >>> increments = [Increment(), Increment(dataset="generic"), Increment(dataset="webvid")]
    >>> datasets(manifest_pb2.Manifest(dataset="webvid", increments=increments))
    ['webvid', 'generic']
    """
    appended = (increment.dataset for increment in manifest.increments[1:])
    return [*dict.fromkeys((manifest.dataset, *appended))]


def plan_names(manifest: manifest_pb2.Manifest) -> list[str]:
    """Return the name of each increment's file of rejects of planning, in order."""
    return [plan_name(increment) for increment in range(max(1, len(manifest.increments)))]


def parse_json(data: bytes, kind: type[M]) -> M:
    """Parse a JSON file of a snapshot to a message, ignoring fields of a newer schema.

    Raises:
      ContractError: the file is not one JSON object, repeats a name, or a value does not fit its
        field.

    >>> parse_json(b'{"name": "plan.json", "bytes": "7"}', manifest_pb2.FileEntry).bytes
    7
    >>> parse_json(b'{"bytes": 1e999}', manifest_pb2.FileEntry)
    Traceback (most recent call last):
      ...
    protos.contract.ContractError: Failed to parse bytes field: Couldn't parse integer: inf at \
FileEntry.bytes.
    """
    return from_values(parse_values(data), kind)


def parse_values(data: bytes) -> dict[str, Any]:
    """Parse the one JSON object of a file.

    Raises:
      ContractError: the file is not one JSON object, or repeats a name.

    >>> parse_values(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
      ...
    protos.contract.ContractError: the name 'a' occurs twice in an object
    """
    try:
        return strict_json.parse_object(data)
    except ValueError as error:
        raise ContractError(str(error)) from None


def from_values(values: Any, kind: type[M]) -> M:
    """Convert a parsed JSON object to a message, ignoring fields of a newer schema.

    Raises:
      ContractError: `values` is no object, or a value does not fit its field.

    >>> from_values({"name": "plan.json"}, manifest_pb2.FileEntry).name
    'plan.json'
    """
    if not isinstance(values, dict):
        raise ContractError(f"a {type(values).__name__} is not a JSON object")
    try:
        return json_format.ParseDict(values, kind(), ignore_unknown_fields=True)
    # Besides its own error, protobuf raises Python's errors for values of a wrong type, and
    # SystemError if a name is not valid Unicode.
    except (
        *(json_format.ParseError, ValueError, TypeError, AttributeError),
        *(OverflowError, RecursionError, SystemError),
    ) as error:
        raise ContractError(strict_json.first_line(error)) from None


def check_readable(schema_version: str) -> None:
    """Check that a schema has this reader's major version; any minor version passes.

    Raises:
      ContractError: the version is not "major.minor", or its major is not SCHEMA_VERSION's.

    >>> check_readable("1.7")
    >>> check_readable("2.0")
    Traceback (most recent call last):
      ...
    protos.contract.ContractError: the snapshot has schema version 2.0, but this release reads \
1.x: use a release of svilm that reads 2.x, or build the snapshot again
    """
    major, dot, minor = schema_version.partition(".")
    if not (dot and schema_version.isascii() and major.isdecimal() and minor.isdecimal()):
        raise ContractError(
            f"the manifest is damaged: schema version {schema_version!r:.40} is not "
            "'major.minor': build the snapshot again"
        )
    own = SCHEMA_VERSION.partition(".")[0]
    if major != own:
        raise ContractError(
            f"the snapshot has schema version {schema_version}, but this release reads {own}.x: "
            f"use a release of svilm that reads {major}.x, or build the snapshot again"
        )


def check_clip(clip: clip_pb2.Clip, config: manifest_pb2.BuildConfig) -> None:
    """Check one record against the configuration with which it was built.

    Raises:
      ContractError: a field is invalid; the message has the clip, the field and both values.
    """

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise ContractError(f"clip {clip.clip_id!r}: {what}")

    require(bool(clip.clip_id), "clip_id is empty")
    require(bool(clip.video_id), "video_id is empty")
    require(
        0 <= clip.start_us < clip.end_us,
        f"span [{clip.start_us}, {clip.end_us}) µs is empty or negative",
    )
    frames, wanted = len(clip.frames), config.frames_per_clip
    require(frames == wanted, f"it has {frames} frames instead of the manifest's {wanted}")
    times = list(clip.frame_time_us)
    require(len(times) == frames, f"it has {len(times)} frame times for {frames} frames")
    require(times == sorted(times), f"frame times are not in order: {times}")
    require(
        all(clip.start_us <= time < clip.end_us for time in times),
        f"a frame time of {times} µs is outside [{clip.start_us}, {clip.end_us})",
    )
    require(
        clip.frame_encoding == config.frame_encoding,
        f"its frame encoding is {clip.frame_encoding} instead of the manifest's "
        f"{config.frame_encoding}",
    )
    require(
        min(clip.height, clip.width) == config.short_side,
        f"its frames of {clip.height}x{clip.width} pixels do not have the manifest's short side "
        f"{config.short_side}",
    )
    require(
        clip.height == clip.width or not config.square,
        f"its frames of {clip.height}x{clip.width} pixels are not square, as the manifest requires",
    )
    for chunk in clip.noun_chunks:
        require(
            clip.caption[chunk.start : chunk.end] == chunk.text,
            f"noun chunk {chunk.text!r} is not at [{chunk.start}, {chunk.end}) of the caption",
        )
        # Earlier releases made prompts of the text as it stands.
        phrases = (reading(chunk.text)[0], chunk.text)
        require(
            any(
                list(chunk.prompts)
                == [template.format(phrase) for template in config.prompt_templates]
                for phrase in phrases
            ),
            f"prompts of {chunk.text!r} do not follow the manifest's templates",
        )
    require(
        not clip.captions or clip.captions[0] == clip.caption,
        f"its first caption {[*clip.captions][:1]} differs from its caption {clip.caption!r}",
    )
    for question in clip.questions:
        require(bool(question.text), f"question {question.question_id!r} has no text")
    for segment in clip.segments:  # An empty segment is valid, because ActivityNet has some.
        require(
            0 <= segment.start_us <= segment.end_us,
            f"segment {segment.label!r} has the invalid span {segment.start_us} to "
            f"{segment.end_us} µs",
        )
    for box in clip.boxes:
        corners = (box.x1, box.y1, box.x2, box.y2)
        require(
            0 <= box.x1 < box.x2 <= 1 and 0 <= box.y1 < box.y2 <= 1,
            f"box {corners} is not (left, top, right, bottom) from 0 to 1",
        )
        require(box.time_us >= 0, f"box {corners} has the negative time {box.time_us} µs")
        require(0 <= box.score <= 1, f"box {corners} has a score {box.score} outside 0 to 1")
    require(
        clip.video_duration_us >= 0, f"its video has a negative length, {clip.video_duration_us} µs"
    )


def check_manifest(manifest: manifest_pb2.Manifest) -> None:
    """Check that a manifest is readable and accounts for every row.

    Raises:
      ContractError: a version or frame encoding is unknown, a number or prompt template is
        invalid, a shard is missing, or rows are neither records nor rejects.
    """
    check_readable(manifest.schema_version)
    if manifest.config.frame_encoding not in FRAME_ENCODINGS.values():
        raise ContractError(
            f"the frame encoding {manifest.config.frame_encoding} is none of "
            f"{', '.join(FRAME_ENCODINGS)}: use a newer release of svilm"
        )
    _check_numbers(manifest)
    for template in manifest.config.prompt_templates:
        if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
            raise ContractError(
                f"the prompt template {template!r:.100} does not contain {{}} exactly once"
            )
    counts = manifest.counts
    rejected = sum(counts.rejects.values())
    if counts.rows != counts.records + rejected:
        raise ContractError(
            f"rows were lost: {counts.rows} rows are not {counts.records} records + {rejected} "
            "rejects"
        )
    in_shards = sum(shard.records for shard in manifest.shards)
    if in_shards != counts.records:
        raise ContractError(
            f"the shards have {in_shards} records instead of the manifest's {counts.records}"
        )
    if len(manifest.shards) != manifest.config.num_shards:
        raise ContractError(
            f"the manifest lists {len(manifest.shards)} shards instead of "
            f"{manifest.config.num_shards}"
        )
    if manifest.increments:
        _check_increments(manifest)


def _check_increments(manifest: manifest_pb2.Manifest) -> None:
    """Check that the increments have all shards and annotation files.

    Raises:
      ContractError: they do not, or one has no shard or a negative number of files.
    """
    for what, counts, wanted, minimum in (
        ("shards", [one.shards for one in manifest.increments], len(manifest.shards), 1),
        (
            "annotation files",
            [one.annotations for one in manifest.increments],
            len(manifest.annotations),
            0,
        ),
    ):
        if min(counts) < minimum or sum(counts) != wanted:
            raise ContractError(
                f"the {len(counts)} increments have {sum(counts)} {what}, at least {min(counts)} "
                f"each, instead of the manifest's {wanted}: build the snapshot again"
            )


def _check_numbers(manifest: manifest_pb2.Manifest) -> None:
    """Check that counts, sizes and limits are finite and not negative.

    Raises:
      ContractError: a number is negative or not finite.
    """
    config, counts = manifest.config, manifest.counts
    files = [
        entry
        for shard in manifest.shards
        for entry in (shard.data, shard.index, shard.summary)
        if entry.bytes < 0
    ]
    if files:
        raise ContractError(f"{files[0].name!r:.100} has a negative size, {files[0].bytes} bytes")
    for what, value in (
        ("rows", counts.rows),
        ("records", counts.records),
        *((f"rejects of {reason[:40]!r}", count) for reason, count in counts.rejects.items()),
        *((f"records of shard {place}", one.records) for place, one in enumerate(manifest.shards)),
        ("frames_per_clip", config.frames_per_clip),
        ("short_side", config.short_side),
        ("max_past_end_share", config.max_past_end_share),
        ("min_ascii_share", config.filters.min_ascii_share),
        ("min_motion", config.filters.min_motion),
    ):
        if not 0 <= value < float("inf"):
            raise ContractError(f"{what} is {value}: it must be finite and at least 0")


def clip_descriptor() -> bytes:
    """Return the serialised FileDescriptorSet of Clip, as tf.io.decode_proto needs it."""
    files = descriptor_pb2.FileDescriptorSet()
    clip_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    return files.SerializeToString()
