"""Options of `build` that drop rows: each but --exclude becomes a field of Filters."""

import argparse
from typing import Any

from pipelines.argument_types import count, seconds_as_us, share

_OPTIONS: dict[str, dict[str, Any]] = {
    "--min-clip": {
        "dest": "min_clip_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "drop shorter clips",
    },
    "--max-clip": {
        "dest": "max_clip_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "drop longer clips",
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
        "type": share,
        "metavar": "SHARE",
        "help": "drop clips of whose caption less is ASCII, from 0 to 1: 0.9 keeps English",
    },
}


def add(build: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = build.add_argument_group(
        "filters", "off unless named; a row that one drops is a reject with that reason"
    )
    group.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        metavar="FILE",
        help="drop the videos whose ids these files list, one a line: those of evaluation sets",
    )
    for name, settings in _OPTIONS.items():
        group.add_argument(name, **settings, default=0)


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of Filters."""
    fields = [settings["dest"] for settings in _OPTIONS.values()]
    return {field: getattr(arguments, field) for field in fields}
