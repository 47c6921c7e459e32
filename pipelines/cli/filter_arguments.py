"""Options of `build` that drop rows, of which all except --exclude set a field of Filters."""

import argparse
from typing import Any

from pipelines.cli.argument_types import count, number, seconds_as_us

_OPTIONS: dict[str, dict[str, Any]] = {
    "--min-clip": {
        "dest": "min_clip_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "drop shorter clips, by their annotated length; a span that --max-past-end cuts "
        "must keep this length, too",
    },
    "--max-clip": {
        "dest": "max_clip_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "drop longer clips, by their annotated length",
    },
    "--min-words": {
        "dest": "min_caption_words",
        "type": count(1),
        "metavar": "N",
        "help": "drop clips whose caption has fewer words",
    },
    "--max-words": {
        "dest": "max_caption_words",
        "type": count(1),
        "metavar": "N",
        "help": "drop clips whose caption has more words",
    },
    "--min-ascii": {
        "dest": "min_ascii_share",
        "type": number(1),
        "metavar": "SHARE",
        "help": "drop clips of whose caption less is ASCII, from 0 to 1: 0.9 keeps English",
    },
    "--min-motion": {
        "dest": "min_motion",
        "type": number(255),
        "metavar": "0…255",
        "help": "drop clips that stand still: whose pixels' values, 0 to 255, change by less from "
        "frame to frame, on average; 1 drops still pictures",
    },
}


def add(build: argparse.ArgumentParser) -> None:
    """Add the filter options to the parser of `build`."""
    group = build.add_argument_group(
        "filters", "off unless named; a row that one drops is a reject with that reason"
    )
    group.add_argument(
        "--exclude",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="drop the videos whose ids these files list, one a line: those of evaluation sets",
    )
    for name, settings in _OPTIONS.items():
        group.add_argument(name, **settings, default=0)


def refusal(arguments: argparse.Namespace) -> str | None:
    """Return an error message if a filter cannot be applied, else None."""
    if arguments.min_motion and arguments.frames == 1:
        return "--min-motion compares a clip's frames: with --frames 1 there are none to compare"
    return None


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of Filters and their values."""
    fields = [settings["dest"] for settings in _OPTIONS.values()]
    return {field: getattr(arguments, field) for field in fields}
