"""Options of the commands that read finished snapshots."""

import argparse
import os
from typing import Any

from pipelines.argument_types import count

_VERIFY_EPILOG = """\
Checks every checksum, reads every record, and counts rows, records and rejects again. Prints
each fault on a line; the exit status is 0 if there is none and 1 otherwise.

example:
  svilm-pipelines verify snapshots/train
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
