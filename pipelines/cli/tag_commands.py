"""The commands `tag` and `tags`, and the option --tag of commands that make a version."""

import argparse

from pipelines.cli.argument_types import Commands
from pipelines.cli.commands import UsageError
from protos import tags as naming

_TAG_EPILOG = """\
A tag names a version of a data set, such as "latest". It is kept beside the versions, in
CORPUS/tags for versions in the folder CORPUS. CORPUS@latest then stands for the version wherever a
command of svilm takes a snapshot. The tag has the sha256 of the version's manifest. If the version
is altered, the tag is refused. A tag keeps its history: `svilm-pipelines tags CORPUS NAME`.

examples:
  svilm-pipelines tag snapshots/1.1.0 latest --move
  svilm-pipelines tag snapshots@latest paper
  svilm-pipelines tag snapshots paper --delete
"""

_TAGS_EPILOG = """\
Prints the tag, the folder and data version of its version, the sha256 of the version's manifest,
and the time at which the tag was moved there.

examples:
  svilm-pipelines tags snapshots
  svilm-pipelines tags snapshots latest
"""


def name(text: str) -> str:
    """Check the name of a tag.

    >>> name("latest")
    'latest'
    """
    if not naming.is_name(text):
        raise argparse.ArgumentTypeError(
            f"{text!r:.100} is no name of a tag: write up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"
        )
    return text


def add_option(parser: argparse.ArgumentParser, earlier: str) -> None:
    """Add --tag to the parser of a command that makes a version.

    Args:
      parser: the command's parser.
      earlier: the version that an existing tag must have, for the help text; empty for any.
    """
    only = f"; an existing tag must be at {earlier}" if earlier else ""
    parser.add_argument(
        "--tag",
        type=name,
        metavar="NAME",
        help=f"when the version is complete, move the tag NAME to it, such as latest{only} "
        "(default: no tag)",
    )


def add(commands: Commands) -> None:
    """Add the commands to argparse's subparsers, the object that `add_subparsers` returned."""
    tag = commands.add_parser(
        "tag",
        help="name a version of a data set, such as latest",
        description="Sets, moves or deletes a tag of a version.",
        epilog=_TAG_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    tag.add_argument(
        "snapshot",
        metavar="SNAPSHOT",
        help="folder of the version; with --delete, the folder of all versions",
    )
    tag.add_argument("tag", type=name, metavar="NAME", help="name of the tag")
    tag.add_argument(
        "--move",
        action="store_true",
        help="move the tag if it is at another version (default: refuse)",
    )
    tag.add_argument(
        "--delete", action="store_true", help="delete the tag; its history stays (default: set it)"
    )
    listing = commands.add_parser(
        "tags",
        help="list the tags of a data set's versions, or the history of a tag",
        description="Lists the tags in a folder of versions, or all movements of one tag.",
        epilog=_TAGS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    listing.add_argument("corpus", metavar="CORPUS", help="folder of the versions")
    listing.add_argument(
        "tag", type=name, nargs="?", metavar="NAME", help="list the history of this tag"
    )


def _tag(arguments: argparse.Namespace) -> int:
    from pipelines.snapshots import tags

    if arguments.delete:
        if arguments.move:
            raise UsageError("--delete contradicts --move: give one of them")
        tags.delete(arguments.snapshot, arguments.tag)
        print(f"tag: {arguments.tag} is deleted from {arguments.snapshot}")
        return 0
    before = tags.put(arguments.snapshot, arguments.tag, move=arguments.move)
    print(f"tag: {arguments.tag} is moved {before}to {arguments.snapshot}")
    return 0


def _tags(arguments: argparse.Namespace) -> int:
    from pipelines.snapshots import tags

    if arguments.tag:
        moves = [(arguments.tag, move) for move in tags.history(arguments.corpus, arguments.tag)]
    else:
        found = tags.all_positions(arguments.corpus)
        moves = [(tag, place.move) for tag, place in found.items() if place.move]
    for tag, move in moves:
        where = "deleted"
        if move.folder:
            where = f"{move.folder}\t{move.data_version}\t{move.manifest_sha256[:12]}"
        print(f"{tag}\t{where}\t{move.moved_at}")
    return 0


def check(arguments: argparse.Namespace, out: str, base: str) -> None:
    """Check, before a version is made, that the tag of --tag may be moved to it, if one is given.

    Args:
      arguments: the command's arguments.
      out: folder of the new version.
      base: folder of the earlier version from which it is made; empty for none.

    Raises:
      TagError: the tag is at another version.
    """
    from pipelines.snapshots import tags

    if arguments.tag:
        tags.check(out, arguments.tag, base or None)


def advance(arguments: argparse.Namespace, out: str, base: str) -> None:
    """Move the tag of --tag to a complete version, if one is given; as `check`."""
    from pipelines.snapshots import tags

    if arguments.tag:
        tags.advance(out, arguments.tag, base or None)
        print(f"{arguments.command}: {arguments.tag} is at {out}")


COMMANDS = {"tag": _tag, "tags": _tags}
