"""Argument parser and help texts of svilm-pipelines, without slow imports: --help is instant."""

import argparse
import importlib.metadata
from typing import Any, NoReturn

from pipelines.cli import append_arguments, build_arguments, logs, snapshot_arguments, tag_commands
from pipelines.cli.argument_types import Commands, count, is_value, number
from pipelines.cli.commands import PROGRAM, UsageError

_ESTIMATE_EPILOG = """\
Reads all annotations, samples videos by the sha256 of their ids, builds their records with the
given options and discards them. Prints each estimate with its 95 % confidence interval. Leaves no
files behind, even after an interruption.

example:
  svilm-pipelines estimate videocc --annotations video_cc_public.csv --videos videos/ \\
      --sample 50 --workers 64 --price 0.06
"""

_CORPUS_EPILOG = """\
Writes three items for each split (train, test) to OUT/<split>: videos/*.mp4, the annotations in
VideoCC's format (video_cc_public.csv) and the ground truth (truth.jsonl). The same options produce
the same bytes.

With --tasks, OUT/tasks contains annotations and videos for these sources of `build`:
  msrvtt, msvd            --videos OUT/tasks/videos, also for msrvtt-qa and msvd-qa
  ucf101, hmdb51          --videos 'OUT/tasks/actions/{label}/{video_id}.{ext}'
  activitynet-tal         --videos 'OUT/tasks/untrimmed/v_{video_id}.{ext}' --window 1 --stride 0.5
  activitynet             the same videos and windows, for moment retrieval
  ava                     --videos OUT/train/videos or OUT/test/videos, --window 2

example:
  svilm-pipelines corpus shapes/ && svilm-pipelines build videocc \\
      --annotations shapes/train/video_cc_public.csv --videos shapes/train/videos \\
      --out snapshots/train --frames 12 --short-side 64
"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._given: dict[argparse.Action, str] = {}  # A parser reads one command line.

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def _parse_optional(self, arg_string: str) -> Any:
        if arg_string not in self._option_string_actions and is_value(arg_string):
            return None
        return super()._parse_optional(arg_string)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        values = super()._get_values(action, arg_strings)
        if action.option_strings and isinstance(action, argparse._StoreAction):
            given = " ".join(map(repr, arg_strings))
            if action in self._given:  # argparse would silently keep the last one.
                name = action.option_strings[0]
                self.error(
                    f"{name} is given twice, {self._given[action]} and {given}: give it once"
                )
            self._given[action] = given
        return values


def parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Return the program's parser and that of `build`, which also accepts Beam's options."""
    parser = _Parser(
        prog=PROGRAM,
        description="Turns captioned spans of videos into snapshots of training records.",
        epilog=f"`{PROGRAM} COMMAND --help` explains a command and gives an example.",
        allow_abbrev=False,
    )
    version = importlib.metadata.version("svilm")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _corpus(commands)
    build = build_arguments.add(commands)
    append_arguments.add(commands)
    _estimate(commands)
    _doctor(commands)
    snapshot_arguments.add(commands)
    tag_commands.add(commands)
    for command in commands.choices.values():
        logs.add(command)
    return parser, build


def _corpus(commands: Commands) -> None:
    corpus = commands.add_parser(
        "corpus",
        help="render Shapes, a synthetic corpus of captioned videos for tests and demos",
        description="Renders Shapes: videos of moving shapes with captions and ground truth.",
        epilog=_CORPUS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    corpus.add_argument("out", metavar="OUT", help="folder to write")
    corpus.add_argument(
        "--train-clips", type=count(0), default=2400, help="number of train clips (default: 2400)"
    )
    corpus.add_argument(
        "--test-clips", type=count(0), default=600, help="number of test clips (default: 600)"
    )
    corpus.add_argument(
        "--seed", type=count(0), default=0, help="seed of the random generator (default: 0)"
    )
    corpus.add_argument(
        "--workers", type=count(1), default=2, help="number of worker processes (default: 2)"
    )
    corpus.add_argument(
        "--tasks",
        action="store_true",
        help="also write OUT/tasks: more videos, and annotations in the formats of the downstream "
        "benchmarks; takes about five times as long (default: off)",
    )


def _estimate(commands: Commands) -> None:
    estimate = commands.add_parser(
        "estimate",
        help="estimate the records, size, time and cost of a build",
        description="Estimates the records, size, time and cost of a build from a sample of the "
        "videos.",
        epilog=_ESTIMATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    build_arguments.clips(estimate)
    # A plan needs these fields, but an estimate discards what it builds: defaults are enough.
    estimate.set_defaults(
        out=".",
        shards=1,
        data_version="0.0.0",
        max_failures=1.0,
        retry_rejects=None,
        list_videos=False,
        split=None,
        split_seed=None,
        tag=None,
    )
    estimate.add_argument(
        "--sample",
        type=count(1),
        default=20,
        metavar="N",
        help="number of sampled videos; four times as many halve the intervals (default: 20)",
    )
    estimate.add_argument(
        "--workers",
        type=count(1),
        default=1,
        metavar="N",
        help="number of worker processes of the build; the estimate itself uses one (default: 1)",
    )
    estimate.add_argument(
        "--price",
        type=number(1e6),
        metavar="X",
        help="price of one worker-hour, in any currency (default: estimate no cost)",
    )


def _doctor(commands: Commands) -> None:
    commands.add_parser(
        "doctor",
        help="check the layers of the decoders' sandbox on this machine, and print versions",
        description="Checks the layers of the decoders' sandbox on this machine. Prints the "
        "versions of the decoders and the parser.",
        epilog="Exit status: 0 if all layers are active, 3 if one is missing.",
        allow_abbrev=False,
    )
