"""Options of `build` that define a clip, each of which sets a field of SourceOptions."""

import argparse
import textwrap
from typing import Any

from pipelines.cli.argument_types import count, seconds_as_us
from pipelines.sources import SOURCES
from pipelines.sources.clip_fields import UNITS
from pipelines.sources.generic import COLUMNS


def _column(text: str) -> tuple[str, str]:
    what, _, name = text.partition("=")
    if what not in COLUMNS or not name:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no column: write WHAT=NAME, WHAT being one of {', '.join(COLUMNS)}"
        )
    return what, name


_OPTIONS: dict[str, dict[str, Any]] = {
    "--paragraphs": {
        "dest": "paragraphs",
        "action": "store_true",
        "help": "make one clip per video, with all its sentences (default: one clip per sentence)",
    },
    "--widen-to": {
        "dest": "widen_to_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "minimum clip length in seconds; widens shorter clips about their centre. "
        "Narration rarely coincides with the action; common values are 4 and 10 (default: off)",
    },
    "--columns": {
        "dest": "columns",
        "nargs": "+",
        "action": "extend",
        "type": _column,
        "metavar": "WHAT=NAME",
        "help": f"the file's column names for {', '.join(COLUMNS)} (default: the same names)",
    },
    "--time-unit": {
        "dest": "time_unit",
        "choices": UNITS,
        "help": "unit of start and end (default: s)",
    },
    "--subset": {
        "dest": "subset",
        "metavar": "NAME",
        "help": "subset to build, as named in the annotations; rows of others are rejected "
        "(default: all)",
    },
    "--fold": {
        "dest": "fold",
        "type": count(1, 3),
        "metavar": "1…3",
        "help": "number of the official train/test split (default: 1)",
    },
    "--window": {
        "dest": "window_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "length in seconds of each window of an untrimmed video (default: 4), or of the "
        "window about a keyframe (default: 64/30)",
    },
    "--stride": {
        "dest": "stride_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "distance in seconds between the centres of successive windows (default: --window)",
    },
    "--cut-at": {
        "dest": "cut_at_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "annotation time at which the video files begin, in seconds; 900 for the usual "
        "15-minute cuts (default: 0)",
    },
    "--keep-empty-captions": {
        "dest": "keep_empty_captions",
        "action": "store_true",
        "help": "keep rows without a caption as records (default: reject them)",
    },
}


FIELDS = [settings["dest"] for settings in _OPTIONS.values()]  # of SourceOptions


def add(build: argparse.ArgumentParser) -> None:
    """Add the options to the parser of `build`, without defaults.

    An option that is not given is missing from the namespace.
    """
    group = build.add_argument_group(
        "clips", "Each option applies to the sources in brackets, at the end of its text."
    )
    for name, settings in _OPTIONS.items():
        sources = [name for name, source in SOURCES.items() if settings["dest"] in source.OPTIONS]
        listed = "all" if len(sources) == len(SOURCES) else ", ".join(sources)
        described = {**settings, "help": f"{settings['help']} ({listed})"}
        group.add_argument(name, **described, default=argparse.SUPPRESS)


def refusal(arguments: argparse.Namespace) -> str | None:
    """Return an error message if the source does not support a given option, else None."""
    for name, settings in _OPTIONS.items():
        field = settings["dest"]
        if hasattr(arguments, field) and field not in SOURCES[arguments.source].OPTIONS:
            others = [other for other in SOURCES if field in SOURCES[other].OPTIONS]
            return (
                f"{name} does not apply to the source {arguments.source}, only to "
                f"{', '.join(others)}: remove it"
            )
    named: dict[str, str] = {}
    for what, name in getattr(arguments, "columns", ()):
        if what in named:
            return f"--columns has two names for {what}, {named[what]} and {name}: give one"
        named[what] = name
    if hasattr(arguments, "subset"):
        subsets = SOURCES[arguments.source].SUBSETS
        if arguments.subset not in subsets:
            return (
                f"--subset {arguments.subset} does not exist in {arguments.source}: "
                f"choose {' or '.join(subsets)}"
            )
    return None


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the given fields of SourceOptions and their values."""
    values = {field: getattr(arguments, field) for field in FIELDS if hasattr(arguments, field)}
    return {**values, "columns": dict(values.get("columns", ()))}


def forms() -> str:
    """Return a help text with one paragraph on the annotation rows of each source."""
    return "\n".join(
        textwrap.fill(source.FORM, 98, initial_indent=f"  {name:<17}", subsequent_indent=" " * 19)
        for name, source in SOURCES.items()
    )
