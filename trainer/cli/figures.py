"""The arguments and the output of `svilm-train figures`."""

import argparse
from typing import Any

from trainer import progress
from trainer.cli.arguments import add_allow_seen, count, on_disk, phrase
from trainer.cli.commands import add_subject, check_unseen, load_run
from trainer.cli.outputs import FIGURES, check_folder

_EPILOG = """\
OUT gets:
  nouns-NUMBER.png, .gif  one pair per clip: a heat map of each noun of the caption. Hot patches are
                          assigned to the group most similar to the noun
  windows.png             spliced clips, and the cosine similarities of their windows
  groups.png              the patches assigned to each group, and the nouns similar to it
  figures.json            the clips, the run, the step and the snapshot

examples:
  svilm-train figures --run runs/first --snapshot snapshots/test --out figures
  svilm-train figures --run runs/first --beside runs/no-temporal-loss --snapshot snapshots/test \\
      --clip dQw4w9WgXcQ_0_10000000_1a2b3c4d5e6f7a8b --noun "red ring" --out figures
"""


def add_figures(commands: Any) -> None:
    """Add the command `svilm-train figures`."""
    parser = commands.add_parser(
        "figures",
        help="draw a run's noun heat maps, window similarities and group usage",
        description="Draws the paper's figures 2, 4 and 5 for a run and clips.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_figures)
    add_subject(parser)
    parser.add_argument(
        "--beside",
        metavar="RUN",
        help="another run to compare window similarities with (default: none)",
    )
    add_allow_seen(parser, "draw a snapshot")
    parser.add_argument("--out", type=on_disk, required=True, metavar="OUT", help="output folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--clips",
        type=count(1),
        default=8,
        metavar="N",
        help="number of clips, sampled at random (default: 8)",
    )
    which.add_argument(
        "--clip", action="append", metavar="ID", help="the clip_id of a clip; may be repeated"
    )
    parser.add_argument(
        "--noun",
        type=phrase,
        action="append",
        default=[],
        metavar="PHRASE",
        help="a noun phrase to locate in every clip; may be repeated (default: the nouns of each "
        "caption)",
    )


def _figures(arguments: argparse.Namespace) -> int:
    from trainer.data.snapshot import Snapshot
    from trainer.figures import write
    from trainer.runs import run_lock

    check_folder(arguments, "out", FIGURES)
    runs = {arguments.run: load_run(arguments.run)}
    if arguments.beside:
        runs[arguments.beside] = load_run(arguments.beside)
    snapshot = Snapshot.open(arguments.snapshot)
    overlaps = [check_unseen(run, snapshot, arguments).sentence() for run in runs.values()]
    records = (
        write.find_records(snapshot, arguments.clip)
        if arguments.clip
        else write.sample_records(snapshot, arguments.clips)
    )
    with run_lock.held(arguments.out, "figures"), progress.shown("figures") as show:
        files = write.write(runs, snapshot, records, tuple(arguments.noun), arguments.out, show)
    print(f"figures: {len(files)} files in {arguments.out}; {'; '.join(overlaps)}")
    return 0
