"""The option `--moments` of the command `search`."""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from trainer.cli.terminal_text import one_line

if TYPE_CHECKING:
    import numpy as np

    from trainer.index.index import Index
    from trainer.index.queries import Filters

# Options of results with frames.
_OF_CLIPS = ("noun", "out", "heat_maps")


def add_moments(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--moments",
        action="store_true",
        help="find spans of videos: the index has their sliding windows, as of `svilm-pipelines "
        "build activitynet --window`. --length is that of the spans",
    )


def check_moments(arguments: argparse.Namespace) -> None:
    """End the command with a usage error if the option and others exclude each other."""
    for name in _OF_CLIPS if arguments.moments else ():
        if getattr(arguments, name):
            option = f"--{name.replace('_', '-')}"
            arguments.misused(f"{option} applies only to clips: leave it or --moments out")


def search_moments(
    arguments: argparse.Namespace,
    index: "Index",
    like: "str | np.ndarray | None",
    filters: "Filters",
) -> list[dict[str, Any]]:
    """Find and print the spans, and return them as objects for JSON."""
    from trainer.inference.search import clock

    found = index.moments(
        arguments.text,
        minus=arguments.minus,
        like=like,
        filters=filters,
        top=arguments.top,
        offset=arguments.offset or 0,
        each_video=arguments.each_video,
    )
    for one in found:
        span = f"{clock(one.start_us)}–{clock(one.end_us)}"
        print(f"{one.score:6.3f}  {one_line(one.video_id)}  {span}")
    return [dataclasses.asdict(one) for one in found]
