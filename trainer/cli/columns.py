"""The arguments and the output of `svilm-train columns` and `svilm-train near-duplicates`."""

import argparse
import contextlib
import hashlib
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainer import progress
from trainer.cli.arguments import count, on_disk, refuse_ignored
from trainer.cli.commands import add_parser
from trainer.cli.outputs import OutputError, output_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainer.data.snapshot import Snapshot
    from trainer.inference.near_duplicates import Nearest, Rows

_COLUMNS_EPILOG = """\
FILE is a .csv with a header, or a .jsonl with an object per line. Both have clip_id and a value: a
number, in JSON also true, false or a list of numbers. Rows may be in any order. Every clip of the
snapshot requires one. Prints the distribution of the values, to choose a threshold.

`svilm-train pretrain --column OUT --where EXPR` keeps clips by columns, and
--set input.weights_column=NAME weighs them. The snapshot itself does not change. A column is of one
version of a snapshot, and is refused for others. docs/reference/column_files.md has the format.

examples:
  svilm-train embed --run runs/first --snapshot snapshots/train --feature score --out features/score
  svilm-train columns --snapshot snapshots/train --features features/score --feature score \\
      --out score.safetensors
  svilm-train columns --snapshot snapshots/train --values clusters.csv --out cluster.safetensors
"""

_DUPLICATES_EPILOG = """\
SemDeDup (Abbas et al. 2023): k-means, then the cosine of each pair within a cluster, exactly. A
clip is a duplicate if its cosine with a clip of its cluster exceeds the threshold that is less
similar to the cluster's centroid than itself. So the least similar clip of a group is kept.

Prints how many clips would be removed at several thresholds, and some pairs, from the least similar
that is above the threshold to the most similar. Without --out it is a preview. OUT is a column
`duplicate_of`: the number of the record that a clip duplicates, −1 for clips to keep. The snapshot
itself does not change:
  svilm-train pretrain --column duplicates.safetensors --where 'duplicate_of < 0' …

examples:
  svilm-train embed --run runs/first --snapshot snapshots/train --feature clip --out features/train
  svilm-train near-duplicates --snapshot snapshots/train --features features/train --sheet pairs.png
  svilm-train near-duplicates --snapshot snapshots/train --features features/train \\
      --threshold 0.97 --out duplicates.safetensors --write-ids duplicates.txt
"""


def add_columns(commands: Any) -> None:
    """Add the command `svilm-train columns`."""
    parser = add_parser(
        commands,
        "columns",
        "write a column of values beside a snapshot",
        "Writes a column: one value per clip of a snapshot, by which training filters or weighs "
        "clips.",
        _COLUMNS_EPILOG,
    )
    parser.set_defaults(command=_columns, misused=parser.error)
    _add_snapshot(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--values", type=on_disk, metavar="FILE", help="a .csv or .jsonl file of ids and values"
    )
    source.add_argument(
        "--features",
        type=on_disk,
        metavar="DIR",
        help="output of `svilm-train embed` for this snapshot",
    )
    parser.add_argument(
        "--feature",
        default=None,
        choices=("clip", "groups", "score"),
        help="with --features, the feature (default: score)",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="name of the column, which is the field of --values (default: the only field besides "
        "clip_id, or --feature)",
    )
    parser.add_argument(
        "--missing",
        metavar="WHY",
        help="with --values, allow clips without a value, and record why, such as 'not scored'; no "
        "comparison with a missing value is true (default: refuse)",
    )
    parser.add_argument(
        "--ignore-unknown",
        action="store_true",
        help="with --values, leave out ids that the snapshot does not have (default: refuse)",
    )
    parser.add_argument("--out", type=on_disk, required=True, metavar="OUT", help="the column")


def _columns(arguments: argparse.Namespace) -> int:
    refuse_ignored(
        arguments,
        ("missing", arguments.values, "--values"),
        ("ignore_unknown", arguments.values, "--values"),
        ("feature", arguments.features, "--features"),
    )
    import numpy as np

    from trainer.data import column_values, columns
    from trainer.data.snapshot import Snapshot
    from trainer.inference.feature_rows import FeatureRows

    snapshot = Snapshot.open(arguments.snapshot)
    with output_file(arguments) as unfinished:
        assert unfinished is not None
        if arguments.values:
            name, values, missing, unknown = column_values.read_values(
                arguments.values,
                snapshot,
                arguments.name,
                allow_missing=arguments.missing is not None,
                allow_unknown=arguments.ignore_unknown,
            )
            if unknown:
                progress.warn(f"columns: {unknown:,} rows are of no clip of {snapshot.folder}")
            with arguments.values.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            made_from: dict[str, Any] = {"file": arguments.values.name, "sha256": sha256}
            why = arguments.missing if missing else None
        else:
            feature = arguments.feature or "score"
            rows = FeatureRows(arguments.features, feature, snapshot)
            name, values = arguments.name or feature, rows.at(np.arange(len(snapshot)))
            made_from = {"feature": feature, "features": rows.made_from}
            why = "the clip has no caption" if np.isnan(values).any() else None
        columns.write(unfinished, snapshot, name, values, made_from, why)
    print(f"columns: {arguments.out}, {name} of {len(values):,} clips")
    if values.ndim == 1:
        print(_distribution(values))
    return 0


def _distribution(values: Any) -> str:
    """Return the quantiles of a column in one line.

    >>> import numpy as np
    >>> _distribution(np.array([0.0, 1, 2, 3, 4, np.nan]))
    'minimum 0, 10 % 0.4, 25 % 1, median 2, 75 % 3, 90 % 3.6, maximum 4, missing 1'
    """
    import numpy as np

    known = values[~np.isnan(values)]
    if not known.size:
        return f"missing {len(values):,}"
    names = ("minimum", "10 %", "25 %", "median", "75 %", "90 %", "maximum")
    found = np.quantile(known, (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1))
    parts = [f"{name} {value:.4g}" for name, value in zip(names, found, strict=True)]
    return ", ".join([*parts, f"missing {len(values) - known.size:,}"])


def add_near_duplicates(commands: Any) -> None:
    """Add the command `svilm-train near-duplicates`."""
    parser = add_parser(
        commands,
        "near-duplicates",
        "find clips that are almost the same",
        "Finds near-duplicate clips by their embeddings, counts them at several thresholds, and "
        "writes a column by which training leaves them out.",
        _DUPLICATES_EPILOG,
    )
    parser.set_defaults(command=_near_duplicates, misused=parser.error)
    _add_snapshot(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--features",
        type=on_disk,
        metavar="DIR",
        help="output of `svilm-train embed` for this snapshot",
    )
    source.add_argument(
        "--column", metavar="FILE", help="a column of vectors, such as those of another model"
    )
    parser.add_argument(
        "--feature",
        choices=("clip", "groups", "windows"),
        help="with --features, the feature (default: clip)",
    )
    parser.add_argument(
        "--threshold",
        type=_cosine,
        default=0.95,
        metavar="COSINE",
        help="cosine above which two clips are near-duplicates (default: 0.95)",
    )
    parser.add_argument(
        "--clusters",
        type=count(1),
        metavar="K",
        help="clusters of k-means; more take less time and miss more pairs (default: one per 8,192 "
        "clips)",
    )
    parser.add_argument(
        "--seed", type=count(0), default=0, metavar="N", help="seed of k-means (default: 0)"
    )
    parser.add_argument(
        "--pairs",
        type=count(0),
        default=10,
        metavar="N",
        help="number of pairs to print and to draw (default: 10)",
    )
    parser.add_argument(
        "--sheet", metavar="PNG", help="file for a contact sheet of the pairs (default: none)"
    )
    parser.add_argument(
        "--out",
        type=on_disk,
        metavar="OUT",
        help="file for the column duplicate_of (default: none, a preview)",
    )
    parser.add_argument(
        "--write-ids",
        type=on_disk,
        metavar="FILE",
        help="file for the ids of the clips to remove, one per line (default: none)",
    )
    parser.add_argument(
        "--write-clusters",
        type=on_disk,
        metavar="FILE",
        help="file for a column cluster with each clip's cluster (default: none)",
    )


def _add_snapshot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--snapshot", required=True, metavar="DIR", help="a snapshot of `svilm-pipelines build`"
    )


def _cosine(text: str) -> float:
    """Parse a cosine between 0 and 1, as an argparse type.

    >>> _cosine("0.95")
    0.95
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a cosine between 0 and 1, such as 0.95")
    return value


def _near_duplicates(arguments: argparse.Namespace) -> int:
    refuse_ignored(arguments, ("feature", arguments.features, "--features"))

    from trainer.data import columns
    from trainer.data.snapshot import Snapshot
    from trainer.inference import near_duplicates

    snapshot, threshold = Snapshot.open(arguments.snapshot), arguments.threshold
    with contextlib.ExitStack() as stack:
        files = {
            option: stack.enter_context(output_file(arguments, option))
            for option in ("out", "write_ids", "write_clusters", "sheet")
        }
        rows, made_from = _rows(arguments, snapshot)
        number = arguments.clusters or near_duplicates.cluster_count(len(snapshot))
        with progress.shown("near-duplicates") as show:
            found = near_duplicates.find_nearest(rows, number, arguments.seed, show)
        removed = found.duplicates(threshold)
        for one in near_duplicates.describe(found, threshold):
            mark = " <" if one["threshold"] == threshold else ""
            share = 100 * one["removed"] / one["of"]
            print(
                f"cosine > {one['threshold']:<6g} {one['removed']:>12,} clips {share:6.2f} %{mark}"
            )
        pairs = near_duplicates.some_pairs(found, threshold, arguments.pairs)
        for line in _pair_lines(snapshot, found, pairs.tolist()):
            print(line)
        made_from |= {"clusters": number, "seed": arguments.seed}
        if file := files["sheet"]:
            _sheet(snapshot, found, pairs.tolist(), threshold).save(file, "png")
        if file := files["write_ids"]:
            _write_ids(file, snapshot, removed)
        if file := files["write_clusters"]:
            values = found.cluster.astype("<i8")
            columns.write(file, snapshot, "cluster", values, made_from)
        if file := files["out"]:
            made_from |= {"threshold": threshold, "kept": "lowest cosine to its centroid"}
            values = found.duplicate_of(threshold)
            columns.write(file, snapshot, "duplicate_of", values, made_from)
    of = f"{len(removed):,} of {len(snapshot):,} clips are near-duplicates at {threshold:g}"
    to = f"{arguments.out} has them" if arguments.out else "nothing is written without --out"
    print(f"near-duplicates: {of}: {to}")
    return 0


def _rows(arguments: argparse.Namespace, snapshot: "Snapshot") -> tuple["Rows", dict[str, Any]]:
    """Return the embeddings, and what they were made from."""
    from trainer.data import columns
    from trainer.inference.feature_rows import FeatureRows
    from trainer.inference.near_duplicates import ColumnRows

    if arguments.features:
        feature = arguments.feature or "clip"
        rows = FeatureRows(arguments.features, feature, snapshot)
        return rows, {"feature": feature, "features": rows.made_from}
    column = columns.read(arguments.column)
    if column.manifest_sha256 != snapshot.manifest_sha256 or column.values.ndim != 2:
        raise OutputError(
            f"--column {arguments.column} has no vectors of {snapshot.folder}: give a column of "
            "vectors of this version of the snapshot"
        )
    return ColumnRows(column.values), {"column": column.name, "sha256": column.values_sha256}


def _pair_lines(snapshot: "Snapshot", found: "Nearest", pairs: list[int]) -> Iterator[str]:
    """Yield two lines for each pair: the clip that is removed, and the one that it duplicates."""
    for record in pairs:
        other = int(found.record[record])
        for number, what in ((record, f"{found.cosine[record]:.4f} remove"), (other, "is like")):
            clip = snapshot.clip(number)
            caption = " ".join(clip.caption.split())
            shown = caption if len(caption) <= 80 else f"{caption[:79]}…"
            yield f"{what:>13}  {clip.clip_id}  {shown}"


def _sheet(snapshot: "Snapshot", found: "Nearest", pairs: list[int], threshold: float) -> "Image":
    from trainer.data.batches import ClipText
    from trainer.inference.search import Found, contact_sheet

    shown, clips = [], []
    for removed in pairs:
        for record in (removed, int(found.record[removed])):
            clip = snapshot.clip(record)
            text = ClipText(
                clip.clip_id, clip.video_id, clip.start_us, clip.end_us, clip.caption, ()
            )
            shown.append(Found(float(found.cosine[removed]), record, text))
            clips.append(clip)
    return contact_sheet(f"near-duplicates above {threshold:g}", shown, clips)


def _write_ids(path: pathlib.Path, snapshot: "Snapshot", records: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, len(records), 65_536):
            for clip_id in snapshot.clip_ids(records[first : first + 65_536]):
                file.write(f"{clip_id}\n")
