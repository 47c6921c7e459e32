"""Options of the commands that read finished snapshots."""

import argparse
import os
import re
from typing import Any

from pipelines.cli.argument_types import count, semantic_version
from protos import contract

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
  svilm-pipelines describe snapshots/train --out card.html --name 'Our bikes'
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
Writes a file for each shard.

webdataset        a tar file. A sample is <clip_id>.txt (the caption; "%2E" stands for "." in the
                  id), .json (ids, times in microseconds, noun chunks, labels, and captions,
                  questions, segments and boxes where the source has them) and .0000.jpg,
                  .0001.jpg, … (the frames; of snapshots with --encoding png .png, with raw .npy,
                  uint8 [height, width, 3])
sequence-example  TFRecords of tf.train.SequenceExample with MediaSequence's keys, as DMVR reads
                  them: lists image/encoded and image/timestamp (microseconds); context
                  clip/start/timestamp, clip/end/timestamp, clip/media_id, clip/data_path (the
                  clip_id), clip/label/string, clip/label/index, caption/string, noun/string,
                  image/format (JPEG or PNG; raw frames are refused), image/height, image/width.
                  label_map.csv lists the labels

examples:
  svilm-pipelines export snapshots/train --out webdataset/train
  svilm-pipelines export snapshots/train --format sequence-example --out dmvr/train
"""


def add(commands: Any, shape: type[argparse.HelpFormatter]) -> None:
    """Add the commands to argparse's subparsers.

    Args:
      commands: the object that `add_subparsers` returned.
      shape: help formatter of each command.
    """

    def command(name: str, summary: str, description: str, epilog: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=epilog,
            formatter_class=shape,
            allow_abbrev=False,
        )

    verify = command(
        "verify", "check a snapshot", "Checks a snapshot against its manifest.", _VERIFY_EPILOG
    )
    _snapshot(verify)
    _workers(verify)

    inspect = command(
        "inspect",
        "show records as text and as pictures",
        "Shows records of a snapshot.",
        _INSPECT_EPILOG,
    )
    _snapshot(inspect)
    inspect.add_argument("records", nargs="*", metavar="RECORD", help="which (default: a few)")
    inspect.add_argument(
        "--pictures",
        type=_picture_file,
        metavar="FILE",
        help="also write a contact sheet, .html or .png",
    )

    describe = command(
        "describe",
        "write a data card: what a snapshot holds, in one HTML file",
        "Writes a snapshot's data card.",
        _DESCRIBE_EPILOG,
    )
    _snapshot(describe)
    describe.add_argument(
        "--out", type=_page_file, required=True, metavar="FILE", help="the HTML file to write"
    )
    describe.add_argument(
        "--name",
        metavar="TEXT",
        help="the data set's name, as the card's title (default: the source's, such as generic)",
    )
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

    diff = command(
        "diff",
        "tell what changed between two snapshots, and why",
        "Compares two snapshots.",
        _DIFF_EPILOG,
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

    remove = command(
        "remove",
        "make a new version without some videos",
        "Makes a new version of a snapshot without some videos.",
        _REMOVE_EPILOG,
    )
    _snapshot(remove)
    remove.add_argument(
        "--videos",
        required=True,
        action="append",
        metavar="FILE",
        help="their ids, one a line; may be repeated",
    )
    remove.add_argument("--out", required=True, metavar="DIR", help="folder for the new version")
    remove.add_argument(
        "--data-version",
        type=semantic_version,
        metavar="X.Y.Z",
        help="of the new version (default: the next major one, as records go away)",
    )
    _workers(remove)

    export = command(
        "export",
        "write a snapshot in a form that other trainers read",
        "Writes a snapshot's records as WebDataset tars or as TFRecords of SequenceExamples.",
        _EXPORT_EPILOG,
    )
    _snapshot(export)
    export.add_argument(
        "--format",
        choices=("webdataset", "sequence-example"),
        default="webdataset",
        help="the form (default: webdataset)",
    )
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


def _page_file(text: str) -> str:
    """Return a path whose name no file of a snapshot has, so that none is overwritten.

    >>> _page_file("card.html")
    'card.html'
    """
    names = rf"{contract.MANIFEST_NAME}|{contract.PLAN_NAME}|shard-\d+-of-\d+\..*"
    if re.fullmatch(names, os.path.basename(text)):
        raise argparse.ArgumentTypeError(f"{text} is named as a file of a snapshot: name another")
    return text


def _picture_file(text: str) -> str:
    if not text.endswith((".html", ".png")):
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither .html nor .png")
    return text
