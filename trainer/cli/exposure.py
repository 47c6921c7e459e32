"""The arguments and the output of `svilm-train exposure`."""

import argparse
import json
import pathlib
from typing import Any

from trainer.cli.arguments import on_disk
from trainer.cli.commands import add_parser, add_run
from trainer.cli.outputs import output_file
from trainer.errors import ExitCode, UserError

_EPILOG = """\
Sample order is arithmetic, so nothing is trained or decoded: the steps follow from the run's
config.json and data.json, and from the indices of its training snapshots. Keep a snapshot until the
exposure of its runs is known. Clips of corrupt records that were replaced are not counted, and
their replacements are (RUN/skipped_clips.jsonl). For a fine-tuned run, and for one with
--start-from, the runs that it started from are listed, too.

The table has for each video its clips, how often batches had one (draws), and how many of these
draws were spliced by cut-and-paste. A spliced clip is the foreground of its own example, and the
background of another clip's. --json FILE lists every draw: step, row of the global batch, clip, and
for a spliced one both partners and their shares of the windows. Steps count from 1, as in
metrics.jsonl, so that checkpoint N has seen the steps up to N.

Exit status:
  0  the run saw none of the videos
  3  it saw at least one, or its vocabulary was trained on the texts of one
  1  it cannot be known: a snapshot or an earlier run is missing, or a file is damaged
  2  invalid command line

examples:
  svilm-train exposure --run runs/first --videos taken_down.txt
  svilm-train exposure --run runs/first/checkpoints/400 --videos taken_down.txt --json seen.json
"""


class ExposureUnknownError(UserError, RuntimeError):
    """An exposure of which a part cannot be known."""


def add_exposure(commands: Any) -> None:
    """Add the command `svilm-train exposure`."""
    parser = add_parser(
        commands,
        "exposure",
        "list the steps at which a run saw some videos",
        "Lists which clips of some videos a run was trained on, at which steps, and which "
        "checkpoints are from before the first of them.",
        _EPILOG,
    )
    parser.set_defaults(command=_exposure, misused=parser.error)
    add_run(parser)
    parser.add_argument(
        "--videos",
        type=on_disk,
        required=True,
        action="append",
        metavar="FILE",
        help="text file of video ids, one per line, as for `svilm-pipelines remove`; may be "
        "repeated",
    )
    parser.add_argument(
        "--snapshot",
        action="append",
        default=[],
        metavar="DIR",
        help="where a training snapshot is now; may be repeated, in any order (default: where it "
        "was when the run began)",
    )
    parser.add_argument(
        "--earlier-run",
        action="append",
        default=[],
        metavar="RUN",
        help="where the run is now that RUN started from; may be repeated along the chain "
        "(default: where it was when RUN began)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FILE",
        help="where a column is now by which a run selected its clips; may be repeated, in any "
        "order (default: where it was when the run began)",
    )
    parser.add_argument("--json", metavar="FILE", help="file for all draws (default: none)")


def _exposure(arguments: argparse.Namespace) -> int:
    video_ids = set[str]().union(*map(_video_ids, arguments.videos))

    from trainer.data.snapshot import Snapshot
    from trainer.exposure import text
    from trainer.exposure.exposure import exposure
    from trainer.runs.run_path import run_path

    with output_file(arguments, "json") as unfinished:
        found = exposure(
            run_path(arguments.run),
            video_ids,
            [Snapshot.open(folder) for folder in arguments.snapshot],
            [run_path(folder) for folder in arguments.earlier_run],
            arguments.column,
        )
        if unfinished:
            values = json.dumps(text.as_json(found), indent=1)
            unfinished.write_text(f"{values}\n", encoding="utf-8")
    for line in text.lines(found):
        print(line)
    if found.exposed:
        return ExitCode.EXPOSED
    if found.unknown:
        raise ExposureUnknownError(
            f"none of the videos was seen as far as is known, but {found.unknown[0]}: restore it, "
            "or give --earlier-run"
        )
    return ExitCode.OK


def _video_ids(path: pathlib.Path) -> set[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExposureUnknownError(
            f"--videos {path} is no text in UTF-8 (byte {error.start}): give one video id per line"
        ) from None
    video_ids = {line.strip() for line in text.split("\n")} - {""}
    if not video_ids:
        raise ExposureUnknownError(f"--videos {path} is empty: give one video id per line")
    return video_ids
