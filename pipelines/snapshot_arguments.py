"""Options of the commands that read finished snapshots."""

import argparse
import os
from typing import Any

from pipelines.argument_types import count, semantic_version

_VERIFY_EPILOG = """\
Checks every checksum, reads every record, and counts rows, records and rejects again. Prints
each fault on a line; the exit status is 0 if there is none and 1 otherwise.

example:
  svilm-pipelines verify snapshots/train
"""

_INSPECT_EPILOG = """\
A RECORD is a clip_id, or a shard and a number in it, both from 0: 3:17. Without one, eight
records are shown, spread evenly over the snapshot.

example:
  svilm-pipelines inspect snapshots/train 0:0 3:17 --pictures clips.html
"""

_DESCRIBE_EPILOG = """\
The data card is one HTML file that needs no other: counts, clips with captions and noun chunks,
rejects by reason with examples, statistics, provenance and versions.

example:
  svilm-pipelines describe snapshots/train --out card.html
"""

_DIFF_EPILOG = """\
Tells which options, versions and annotations differ, which records were added, removed or
changed and why, and how the rejects changed.

example:
  svilm-pipelines diff snapshots/train-1.0.0 snapshots/train-1.1.0
"""

_REMOVE_EPILOG = """\
Shards that had none of these videos are taken over byte for byte, by hard links where the file
system has them. Removed rows are counted as rejects, and --retry-rejects leaves them alone.

example:
  svilm-pipelines remove snapshots/train-1.0.0 --videos taken_down.txt --out snapshots/train-2.0.0
"""

_EXPORT_EPILOG = """\
Writes a tar file for each shard. A sample is <clip_id>.txt (the caption), .json (ids, times in
microseconds, noun chunks, labels) and .0000.jpg, .0001.jpg, … (the frames).

example:
  svilm-pipelines export snapshots/train --out webdataset/train
"""


def add(commands: Any, shape: type[argparse.HelpFormatter]) -> None:
    """Adds the commands to argparse's subparsers."""
    verify = commands.add_parser(
        "verify",
        help="check a snapshot",
        description="Checks a snapshot against its manifest.",
        epilog=_VERIFY_EPILOG,
        formatter_class=shape,
        allow_abbrev=False,
    )
    _snapshot(verify)
    _workers(verify)

    inspect = commands.add_parser(
        "inspect",
        help="show records as text and as pictures",
        description="Shows records of a snapshot.",
        epilog=_INSPECT_EPILOG,
        formatter_class=shape,
        allow_abbrev=False,
    )
    _snapshot(inspect)
    inspect.add_argument("records", nargs="*", metavar="RECORD", help="which (default: a few)")
    inspect.add_argument(
        "--pictures",
        type=_picture_file,
        metavar="FILE",
        help="also write a contact sheet, .html or .png",
    )

    describe = commands.add_parser(
        "describe",
        help="write a data card: what a snapshot holds, in one HTML file",
        description="Writes a snapshot's data card.",
        epilog=_DESCRIBE_EPILOG,
        formatter_class=shape,
        allow_abbrev=False,
    )
    _snapshot(describe)
    describe.add_argument("--out", required=True, metavar="FILE", help="the HTML file to write")
    describe.add_argument(
        "--clips", type=count(1), default=24, metavar="N", help="clips to show (default: 24)"
    )
    describe.add_argument(
        "--records",
        type=count(1),
        default=2000,
        metavar="N",
        help="records to read for the statistics, spread evenly (default: 2000)",
    )

    diff = commands.add_parser(
        "diff",
        help="tell what changed between two snapshots, and why",
        description="Compares two snapshots.",
        epilog=_DIFF_EPILOG,
        formatter_class=shape,
        allow_abbrev=False,
    )
    diff.add_argument("old", metavar="OLD", help="folder of a snapshot")
    diff.add_argument("new", metavar="NEW", help="folder of the one to compare it with")
    diff.add_argument(
        "--most",
        type=count(0),
        default=10,
        metavar="N",
        help="records of each kind to list (default: 10)",
    )

    remove = commands.add_parser(
        "remove",
        help="make a new version without some videos",
        description="Makes a new version of a snapshot without some videos.",
        epilog=_REMOVE_EPILOG,
        formatter_class=shape,
        allow_abbrev=False,
    )
    _snapshot(remove)
    remove.add_argument("--videos", required=True, metavar="FILE", help="their ids, one a line")
    remove.add_argument("--out", required=True, metavar="DIR", help="folder for the new version")
    remove.add_argument(
        "--data-version",
        type=semantic_version,
        metavar="X.Y.Z",
        help="of the new version (default: the next major one, as records go away)",
    )
    _workers(remove)

    export = commands.add_parser(
        "export",
        help="write a snapshot as WebDataset shards, for other trainers",
        description="Writes a snapshot as WebDataset shards.",
        epilog=_EXPORT_EPILOG,
        formatter_class=shape,
        allow_abbrev=False,
    )
    _snapshot(export)
    export.add_argument("--out", required=True, metavar="DIR", help="empty folder to write")
    _workers(export)


def _snapshot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="folder of the snapshot")


def _workers(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--workers",
        type=count(1),
        default=cores,
        metavar="N",
        help="processes (default: one for each processor core)",
    )


def _picture_file(text: str) -> str:
    if not text.endswith((".html", ".png")):
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither .html nor .png")
    return text
