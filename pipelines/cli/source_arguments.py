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
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form {'|'.join(COLUMNS)}=NAME")
    return what, name


_OPTIONS: dict[str, dict[str, Any]] = {
    "--paragraphs": {
        "dest": "paragraphs",
        "action": "store_true",
        "help": "a clip is a whole video with all its sentences, not a sentence with its span",
    },
    "--widen-to": {
        "dest": "widen_to_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "shorter clips are widened to this, about their middle: narration is seldom in "
        "time with what is shown, and 4 or 10 are usual",
    },
    "--columns": {
        "dest": "columns",
        "nargs": "+",
        "action": "extend",
        "type": _column,
        "metavar": "WHAT=NAME",
        "help": f"the file's names for {', '.join(COLUMNS)}",
    },
    "--time-unit": {
        "dest": "time_unit",
        "choices": UNITS,
        "help": "of start and end (default: s)",
    },
    "--subset": {
        "dest": "subset",
        "metavar": "NAME",
        "help": "take only this part of the data set, as the annotations name it; rows of others "
        "are rejects (default: all)",
    },
    "--fold": {
        "dest": "fold",
        "type": count(1, 3),
        "metavar": "1…3",
        "help": "which of the data set's splits says what is train and what is test (default: 1)",
    },
    "--window": {
        "dest": "window_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "length of the windows of an untrimmed video (default: 4), or of what is about a "
        "keyframe (default: 64/30)",
    },
    "--stride": {
        "dest": "stride_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "distance of the windows' middles (default: --window)",
    },
    "--cut-at": {
        "dest": "cut_at_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "time of the annotations at which the video files begin: 900 for the usual cuts of "
        "15 minutes (default: 0)",
    },
    "--keep-empty-captions": {
        "dest": "keep_empty_captions",
        "action": "store_true",
        "help": "a row without a caption becomes a record, not a reject",
    },
}


def add(build: argparse.ArgumentParser) -> None:
    """Add the options to the parser of `build`, without defaults.

    An option that is not given is missing from the namespace.
    """
    group = build.add_argument_group("what a clip is", "each for the sources in brackets")
    for name, settings in _OPTIONS.items():
        sources = [name for name, source in SOURCES.items() if settings["dest"] in source.OPTIONS]
        told = "all" if len(sources) == len(SOURCES) else ", ".join(sources)
        described = {**settings, "help": f"{settings['help']} ({told})"}
        group.add_argument(name, **described, default=argparse.SUPPRESS)


def refusal(arguments: argparse.Namespace) -> str | None:
    """Return an error message if the source does not support a given option, else None."""
    for name, settings in _OPTIONS.items():
        field = settings["dest"]
        if hasattr(arguments, field) and field not in SOURCES[arguments.source].OPTIONS:
            others = [other for other in SOURCES if field in SOURCES[other].OPTIONS]
            return f"{name} is for {' and '.join(others)}; {arguments.source} has no use for it"
    named: dict[str, str] = {}
    for what, name in getattr(arguments, "columns", ()):
        if what in named:
            return f"--columns names {what} twice, as {named[what]} and as {name}: name one"
        named[what] = name
    if hasattr(arguments, "subset"):
        subsets = SOURCES[arguments.source].SUBSETS
        if arguments.subset not in subsets:
            return f"--subset {arguments.subset}: {arguments.source} has {', '.join(subsets)}"
    return None


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the given fields of SourceOptions and their values."""
    fields = [settings["dest"] for settings in _OPTIONS.values()]
    values = {field: getattr(arguments, field) for field in fields if hasattr(arguments, field)}
    return {**values, "columns": dict(values.get("columns", ()))}


def forms() -> str:
    """Return a help text with one paragraph on the annotation rows of each source."""
    return "\n".join(
        textwrap.fill(source.FORM, 98, initial_indent=f"  {name:<17}", subsequent_indent=" " * 19)
        for name, source in SOURCES.items()
    )
