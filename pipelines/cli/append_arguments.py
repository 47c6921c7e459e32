"""Options of `append`: those of `build`, of which most default to the snapshot's own."""

import argparse

from pipelines.cli import build_arguments, filter_arguments, tag_commands
from pipelines.cli.argument_types import Commands, count, semantic_version

_EPILOG = """\
Writes a new version of a snapshot into another folder. The rows of the annotation files, from any
source, become shards of their own after those of the earlier version. All files of the earlier
version are hard-linked or, in a bucket, copied by the store. The earlier version stays unchanged.

Options of the frames and filters, the decoder and the spaCy model are those of the snapshot. Give
none of them: another value is refused. With the source of an earlier increment, its source options
are the defaults. A row of a clip that the snapshot has is rejected as already_present. A file with
the name of an earlier annotation file is refused.

After an interruption, run the same command again.

examples:
  svilm-pipelines append snapshots/1.0.0 videocc --annotations new.csv --videos videos/ \\
      --out snapshots/1.1.0
  svilm-pipelines append snapshots/1.1.0 generic --annotations lab.tsv --columns end=stop \\
      --videos lab/ --out snapshots/1.2.0
  svilm-pipelines append snapshots@latest videocc --annotations newer.csv --videos videos/ \\
      --out snapshots/1.3.0 --tag latest
"""

# Options that the earlier version determines. They have no defaults here.
_INHERITED = (
    *("frames", "short_side", "square", "encoding", "jpeg_quality", "max_past_end"),
    *("spacy_model", "decoder"),
)


def add(commands: Commands) -> None:
    """Add `append` to argparse's subparsers, the object that `add_subparsers` returned."""
    append = commands.add_parser(
        "append",
        help="add annotation files to a snapshot, as a new version that shares its files",
        description="Adds annotation files to a snapshot as a new version.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    append.add_argument(
        "snapshot", metavar="SNAPSHOT", help="the earlier version: its folder, or CORPUS@TAG"
    )
    build_arguments.clips(append)
    append.add_argument("--out", required=True, metavar="DIR", help="folder of the new version")
    append.add_argument(
        "--shards",
        type=count(1, 99_999),
        metavar="N",
        help="number of new shards, each of which one worker builds (default: one per expected "
        "256 MB)",
    )
    append.add_argument(
        "--data-version",
        type=semantic_version,
        metavar="X.Y.Z",
        help="semantic version of the new snapshot (default: the next minor version)",
    )
    build_arguments.job(append)
    tag_commands.add_option(append, "SNAPSHOT")
    inherited = {*_INHERITED, *filter_arguments.FIELDS}
    for action in append._actions:
        if action.dest in inherited:
            action.default = None
            text = str(action.help).partition(" (default: ")[0]
            action.help = f"{text} (default: the snapshot's)"
    append.set_defaults(retry_rejects=None, split=None, split_seed=None)
