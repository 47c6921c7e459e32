"""The options of a build, with the names and the units of the command line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from pipelines.decoding import frame_codec
from pipelines.snapshots import split
from protos.v1.manifest_pb2 import AnnotationFile, Split

# Options whose names differ from those of their fields.
_OPTIONS = {
    "frames_per_clip": "--frames",
    "frame_encoding": "--encoding",
    "prompt_templates": "prompt templates",
    "num_shards": "--shards",
    "max_past_end_share": "--max-past-end",
    "min_caption_words": "--min-words",
    "max_caption_words": "--max-words",
    "min_ascii_share": "--min-ascii",
    "excluded_sha256": "--exclude",
}


def chosen(config: Message) -> dict[str, str]:
    """Return the options that a build used, with their values.

    >>> from protos.v1.manifest_pb2 import BuildConfig
    >>> chosen(BuildConfig(frames_per_clip=8, frame_encoding=2, source={"widen_to_us": 4_500_000}))
    {'--frames': '8', '--encoding': 'png', '--widen-to': '4.5 s'}
    """
    found = {}
    for field, value in config.ListFields():
        if isinstance(value, Split):
            found["--split"] = split.described(value)
        elif isinstance(value, Message):
            found |= chosen(value)
        else:
            name = field.name.removesuffix("_us").replace("_", "-")
            found[_OPTIONS.get(field.name, f"--{name}")] = _shown(field.name, value)
    return found


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return a phrase for each option whose value changed.

    >>> changes({"--frames": "8", "--square": "yes"}, {"--frames": "4"})
    ['--frames 8 → 4', '--square yes → not given']
    """
    absent = "not given"
    return [
        f"{name} {old.get(name, absent)} → {new.get(name, absent)}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def changed_files(old: Sequence[AnnotationFile], new: Sequence[AnnotationFile]) -> list[str]:
    """Return a phrase for each annotation file that changed, or for a change of order.

    >>> changed_files([AnnotationFile(name="a", bytes=1)], [AnnotationFile(name="b", bytes=1)])
    ['a is missing', 'b is new']
    """
    return [*_changed({one.name: one for one in old}, {one.name: one for one in new})] or [
        "another order"
    ]


def _changed(old: Mapping[str, AnnotationFile], new: Mapping[str, AnnotationFile]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            yield f"{name} is missing"
        elif name not in old:
            yield f"{name} is new"
        elif old[name] != new[name]:
            sizes = f"{old[name].bytes:,} → {new[name].bytes:,} bytes"
            sha256s = f"sha256 {old[name].sha256[:12]}… → {new[name].sha256[:12]}…"
            yield f"{name} {sizes if old[name].bytes != new[name].bytes else sha256s}"


def _shown(name: str, value: Any) -> str:
    if name == "frame_encoding":
        return frame_codec.name(value)
    if name == "excluded_sha256":
        return f"list with sha256 {value[:12]}…"
    if name.endswith("_us"):
        return f"{value / 1e6:g} s"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return " ".join(f"{what}={column}" for what, column in sorted(value.items()))
    if isinstance(value, str | int):
        return str(value)
    return " · ".join(map(str, value))
