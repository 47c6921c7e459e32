"""Options of the commands that read finished snapshots."""

import argparse
import os
import re

from pipelines.cli import tag_commands
from pipelines.cli.argument_types import Commands, count, semantic_version
from protos import contract

_VERIFY_EPILOG = """\
Checks all checksums, reads all records, and recounts rows, records and rejects. Prints one line
per fault. The exit status is 0 if there are no faults, else 1. With --key, the signature of
manifest.json is checked first. The manifest has the sha256 of all other files.

examples:
  svilm-pipelines verify snapshots/train
  svilm-pipelines verify snapshots/train --key public.pem
"""

_SIGN_EPILOG = """\
Writes SNAPSHOT/manifest.json.sig, and changes no other file. manifest.json has the sha256 of all
other files, so that a signed snapshot cannot be altered without notice. No network is used. The
format is that of OpenSSF Model Signing (pip install '.[sign]').

Keys are on an elliptic curve. Make a pair once, and keep the private key to yourself:
  openssl ecparam -name prime256v1 -genkey -noout -out private.pem
  openssl ec -in private.pem -pubout -out public.pem

examples:
  svilm-pipelines sign snapshots/train --key private.pem
  svilm-pipelines verify snapshots/train --key public.pem
"""

_INSPECT_EPILOG = """\
A RECORD is a clip_id, or the number of a shard and of a record in it, both from 0, such as 3:17.
Without a RECORD, eight records are shown, evenly spaced over the snapshot.

example:
  svilm-pipelines inspect snapshots/train 0:0 3:17 --pictures clips.html
"""

_DESCRIBE_EPILOG = """\
FILE.html is a data card, one self-contained file. It shows counts, clips with captions and noun
chunks, rejects by reason with examples, statistics, provenance and versions.

FILE.json is a description in Croissant 1.1 for catalogs: files with sha256, fields, split, license,
lineage (PROV-O) and what is known for responsible AI. It lists paths from its own folder, which is
the snapshot or a folder above. In the snapshot, its name is croissant.json.

examples:
  svilm-pipelines describe snapshots/train --out card.html --name 'Our bikes'
  svilm-pipelines describe snapshots/train --out snapshots/train/croissant.json --license cc-by-4.0
"""

_DIFF_EPILOG = """\
Lists differing options, versions and annotations; added, removed and changed records with the
reason; and changed numbers of rejects.

example:
  svilm-pipelines diff snapshots/train-1.0.0 snapshots/train-1.1.0
"""

_REMOVE_EPILOG = """\
Shards without these videos are copied byte for byte, or hard-linked if the file system supports
it. Removed rows are counted as rejects. --retry-rejects does not restore them.

With --runs, each run is listed that may have seen one of the videos, also by another version of
the data set or through the run that it started from. `svilm-train exposure` lists the steps.

examples:
  svilm-pipelines remove snapshots/train-1.0.0 --videos taken_down.txt --out snapshots/train-2.0.0
  svilm-pipelines remove snapshots/train-1.0.0 --videos taken_down.txt \\
      --out snapshots/train-2.0.0 --runs runs/first runs/second
"""

_EXPORT_EPILOG = """\
Writes one file per shard.

webdataset        Tar files. A sample is <clip_id>.txt, <clip_id>.json and <clip_id>.0000.jpg,
                  .0001.jpg, … In the id, "%2E" stands for ".". txt contains the caption; json
                  the ids, times in microseconds, noun chunks and labels, and any captions,
                  questions, segments and boxes. Frames are .png if the snapshot has --encoding
                  png, and .npy (uint8 [height, width, 3]) if it has raw. A shard without records
                  is an empty tar file. samples-*.parquet have all fields but the frames.
parquet           Parquet files with all fields and the frames, and README.md, a data set card:
                  datasets.load_dataset(DIR) of Hugging Face gives the splits. Several snapshots
                  become several splits. Raw frames become PNGs.
sequence-example  TFRecords of tf.train.SequenceExample with MediaSequence's keys, for DMVR.
                  Feature lists: image/encoded and image/timestamp (microseconds). Context:
                  clip/start/timestamp, clip/end/timestamp, clip/media_id, clip/data_path (the
                  clip_id), clip/label/string, clip/label/index, caption/string, noun/string,
                  image/format (JPEG or PNG), image/height, image/width. Snapshots with raw
                  frames are refused. label_map.csv lists the labels.

webdataset and parquet include croissant.json, a description in Croissant 1.1.

examples:
  svilm-pipelines export snapshots/train --out webdataset/train
  svilm-pipelines export snapshots/train snapshots/test --split train --split test \\
      --format parquet --out parquet/mine --license cc-by-4.0
  svilm-pipelines export snapshots/train --format sequence-example --out dmvr/train
"""


def add(commands: Commands) -> None:
    """Add the commands to argparse's subparsers, the object that `add_subparsers` returned."""
    _verify(commands)
    _sign(commands)
    _inspect(commands)
    _describe(commands)
    _diff(commands)
    _remove(commands)
    _export(commands)


def _command(
    commands: Commands, name: str, summary: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _verify(commands: Commands) -> None:
    verify = _command(
        commands,
        "verify",
        "check a snapshot",
        "Checks a snapshot against its manifest.",
        _VERIFY_EPILOG,
    )
    _snapshot(verify)
    verify.add_argument(
        "--key",
        metavar="FILE",
        help="public key in PEM: refuse a snapshot that its owner did not sign (default: the "
        "signature is not checked)",
    )
    _workers(verify)


def _sign(commands: Commands) -> None:
    sign = _command(
        commands,
        "sign",
        "sign a snapshot with a key of one's own",
        "Signs a snapshot's manifest.",
        _SIGN_EPILOG,
    )
    _snapshot(sign)
    sign.add_argument("--key", required=True, metavar="FILE", help="private key in PEM")


def _inspect(commands: Commands) -> None:
    inspect = _command(
        commands,
        "inspect",
        "show records as text and images",
        "Shows records of a snapshot.",
        _INSPECT_EPILOG,
    )
    _snapshot(inspect)
    inspect.add_argument("records", nargs="*", metavar="RECORD", help="default: eight records")
    inspect.add_argument(
        "--pictures",
        type=_picture_file,
        metavar="FILE",
        help="also write a contact sheet to FILE, .html or .png (default: text only)",
    )


def _describe(commands: Commands) -> None:
    describe = _command(
        commands,
        "describe",
        "write a data card in HTML, or a description in Croissant",
        "Writes a snapshot's data card, or its description in Croissant.",
        _DESCRIBE_EPILOG,
    )
    _snapshot(describe)
    describe.add_argument(
        "--out",
        type=_description_file,
        required=True,
        metavar="FILE",
        help="file to write, .html or .json",
    )
    _about(describe)
    describe.add_argument(
        "--clips",
        type=count(1),
        default=24,
        metavar="N",
        help="number of clips shown (default: 24)",
    )
    describe.add_argument(
        "--records",
        type=count(1),
        default=2000,
        metavar="N",
        help="number of evenly spaced records in the statistics (default: 2000)",
    )


def _diff(commands: Commands) -> None:
    diff = _command(
        commands,
        "diff",
        "list the changes between two snapshots, with reasons",
        "Compares two snapshots.",
        _DIFF_EPILOG,
    )
    diff.add_argument("old", metavar="OLD", help="folder of the earlier snapshot, or CORPUS@TAG")
    diff.add_argument("new", metavar="NEW", help="folder of the later snapshot, or CORPUS@TAG")
    diff.add_argument(
        "--most",
        type=count(0),
        default=10,
        metavar="N",
        help="maximum number of listed records per kind of change (default: 10)",
    )


def _remove(commands: Commands) -> None:
    remove = _command(
        commands,
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
        help="text file of video ids, one per line; may be repeated",
    )
    remove.add_argument(
        "--out", required=True, metavar="DIR", help="output folder of the new version"
    )
    remove.add_argument(
        "--data-version",
        type=semantic_version,
        metavar="X.Y.Z",
        help="semantic version of the new snapshot (default: the next major version)",
    )
    tag_commands.add_option(remove, "SNAPSHOT")
    remove.add_argument(
        "--runs",
        action="extend",
        nargs="+",
        default=[],
        metavar="RUN",
        help="training runs, of which to list those that may have seen a removed video",
    )
    _workers(remove)


def _export(commands: Commands) -> None:
    export = _command(
        commands,
        "export",
        "convert a snapshot to a format of other trainers",
        "Writes a snapshot's records as WebDataset tars, as Parquet files for Hugging Face "
        "`datasets`, or as TFRecords of SequenceExamples.",
        _EXPORT_EPILOG,
    )
    export.add_argument(
        "snapshots",
        nargs="+",
        metavar="SNAPSHOT",
        help="the snapshot's folder, or CORPUS@TAG; with --format parquet, several are possible",
    )
    export.add_argument(
        "--format",
        choices=("webdataset", "parquet", "sequence-example"),
        default="webdataset",
        help="output format (default: webdataset)",
    )
    export.add_argument("--out", required=True, metavar="DIR", help="empty output folder")
    export.add_argument(
        "--split",
        action="append",
        type=_split_name,
        default=[],
        metavar="NAME",
        help="with --format parquet: name of the snapshot's split; give one for each snapshot, in "
        "order (default: its part if it was built with --split, else train)",
    )
    _about(export)
    _workers(export)


def _about(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name",
        type=_statement,
        metavar="TEXT",
        help="name of the data set in its description (default: the source, such as generic)",
    )
    parser.add_argument(
        "--license",
        type=_statement,
        metavar="TEXT",
        help="license of the data for its description: an identifier such as cc-by-4.0, or an "
        "address (default: not stated)",
    )


def _snapshot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the snapshot's folder, or CORPUS@TAG")


def _workers(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--workers",
        type=count(1),
        default=cores,
        metavar="N",
        help="number of worker processes (default: one per CPU core)",
    )


def _description_file(text: str) -> str:
    """Return a path of an HTML or JSON file. Of these, a snapshot only takes croissant.json.

    >>> _description_file("card.html")
    'card.html'
    """
    if os.path.basename(text) == "croissant.json":
        return text
    if not text.endswith((".html", ".json")):
        raise argparse.ArgumentTypeError(f"{text!r} has no supported extension: use .html or .json")
    return _outside_snapshots(text)


def _statement(text: str) -> str:
    """Return a text of printable characters, of which a description can be made.

    >>> _statement("CC BY 4.0")
    'CC BY 4.0'
    """
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is empty, or has unprintable characters")
    return text


def _split_name(text: str) -> str:
    """Return a name that `datasets` accepts for a split and that can begin a file's name.

    >>> _split_name("validation")
    'validation'
    """
    if not re.fullmatch("[A-Za-z0-9_]{1,64}", text) or text == "all":
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a split: use letters, digits and _, and not 'all'"
        )
    return text


def _outside_snapshots(text: str) -> str:
    folder = os.path.dirname(text)
    if os.path.exists(os.path.join(folder, contract.MANIFEST_NAME)):
        raise argparse.ArgumentTypeError(
            f"{folder!r} is a snapshot, which another file would make invalid: give another folder"
        )
    return text


def _picture_file(text: str) -> str:
    if not text.endswith((".html", ".png")):
        raise argparse.ArgumentTypeError(f"{text!r} has no supported extension: use .html or .png")
    return _outside_snapshots(text)
