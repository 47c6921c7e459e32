"""Options of `build` that drop rows, of which all except --exclude set a field of Filters."""

import argparse
import itertools
from collections.abc import Iterable
from typing import Any

from pipelines.cli.argument_types import count, number, seconds_as_us

_NAMED = 3  # maximum number of listed videos that match no row

_OPTIONS: dict[str, dict[str, Any]] = {
    "--min-clip": {
        "dest": "min_clip_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "minimum annotated length of a clip, in seconds; also of a span that "
        "--max-past-end cuts",
    },
    "--max-clip": {
        "dest": "max_clip_us",
        "type": seconds_as_us,
        "metavar": "SECONDS",
        "help": "maximum annotated length of a clip, in seconds",
    },
    "--min-words": {
        "dest": "min_caption_words",
        "type": count(1),
        "metavar": "N",
        "help": "minimum number of words in a caption",
    },
    "--max-words": {
        "dest": "max_caption_words",
        "type": count(1),
        "metavar": "N",
        "help": "maximum number of words in a caption",
    },
    "--min-ascii": {
        "dest": "min_ascii_share",
        "type": number(1),
        "metavar": "SHARE",
        "help": "minimum fraction of ASCII characters in a caption, from 0 to 1; 0.9 keeps English",
    },
    "--min-motion": {
        "dest": "min_motion",
        "type": number(255),
        "metavar": "0…255",
        "help": "minimum mean absolute difference of successive frames, in pixel values from 0 to "
        "255; 1 drops still images",
    },
}


FIELDS = [settings["dest"] for settings in _OPTIONS.values()]  # of Filters


def add(build: argparse.ArgumentParser) -> None:
    """Add the filter options to the parser of `build`."""
    group = build.add_argument_group(
        "filters", "Off by default. A dropped row is counted as a reject with the filter's reason."
    )
    group.add_argument(
        "--exclude",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="files of video ids to drop, one per line, for example of evaluation sets",
    )
    for name, settings in _OPTIONS.items():
        group.add_argument(name, **settings, default=0)


def refusal(arguments: argparse.Namespace) -> str | None:
    """Return an error message if a filter cannot be applied, else None."""
    if arguments.min_motion and arguments.frames == 1:
        return "--min-motion needs at least two frames: raise --frames, which is 1"
    return None


def unmatched(
    excluded: frozenset[str], removed: Iterable[str], plans: Iterable[tuple[str, str]]
) -> str:
    """Return a warning about --exclude's videos that match no row, or an empty string.

    Args:
      excluded: the videos of --exclude.
      removed: videos that were taken down. Rejects no longer name them.
      plans: folder and name of the rejects of planning, for each finished snapshot of the build.
        The snapshots share the annotations' rows.
    """
    from pipelines.planning import filters
    from pipelines.snapshots import plan_summary

    rejects = itertools.chain.from_iterable(itertools.starmap(plan_summary.rejects, plans))
    named = (one.video_id for one in rejects if one.video_id)
    found = filters.unmatched(excluded, itertools.chain(removed, named))
    if not found:
        return ""
    listed = ", ".join(f"{video_id!r:.100}" for video_id in found[:_NAMED])
    more = f" and {len(found) - _NAMED:,} more" if found[_NAMED:] else ""
    return (
        f"{len(found):,} videos of --exclude match no row: {listed}{more}: "
        "check that the ids are spelled as in the annotations"
    )


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of Filters and their values."""
    return {field: getattr(arguments, field) for field in FIELDS}
