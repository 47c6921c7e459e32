"""Action recognition's files: the benchmarks' splits, and the predictions to score.

Ground truth has one or more splits:

testlist01.txt  UCF101's: one line `ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi` per test video
hmdb51.csv      MIL-NCE's: `video_id,label,split1,split2,split3`; 2 marks a test video
a folder        with the three testlists, or with HMDB51's `<class>_test_split1.txt`

Predictions of one split have one of these formats:

FILE.csv   `video_id,label`, one line per video; or `video_id,CLASS,CLASS,…` with one probability
           per class, one line per clip or crop: those of one video are averaged
FILE.json  ActivityNet's and Kinetics' format, {"results": {video_id: [{"label", "score"}, …]}}, of
           which the label with the highest score counts

A video's id is its file name, with or without folder and extension.
"""

import collections
import csv
import difflib
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from trainer.evaluation import action_accuracy
from trainer.evaluation.prediction_files import (
    Path,
    Row,
    TaskFileError,
    json_number,
    list_names,
    number,
    read_json,
    read_lines,
    read_table,
    shorten,
    text_of,
)

Split = tuple[int, dict[str, str]]
"""A split's number, and the class of each of its test videos."""

# Suffixes of compressed files stay in the names of a snapshot's annotations.
_UCF = re.compile(r"testlist0?(\d+)\.txt(?:\.(?:gz|bz2|zst))?")
_UCF_TRAINING = re.compile(r"trainlist\d+\.txt(?:\.(?:gz|bz2|zst))?")
_HMDB = re.compile(r"(.+)_test_split(\d+)\.txt")
_EXTENSION = re.compile(r"\.(avi|mp4|mkv|webm)$")
_TESTED = "2"  # a test video in HMDB51's files; 0 is an unused video, 1 a training video


def score(predictions: Sequence[Path], truth: Sequence[Path]) -> action_accuracy.Splits:
    """Score files of predictions, one per split, in the order of the splits.

    Raises:
      TaskFileError: a file has another format, or has other videos than its split. Or there are
        more files than splits.
    """
    splits = [split for path in truth for split in read_splits(path)]
    if len(predictions) > len(splits):
        raise TaskFileError(
            f"{len(predictions)} files of predictions for {len(splits)} splits of "
            f"{list_names([str(path) for path in truth])}: give one per split, in the order of the "
            "splits"
        )
    for place, split in enumerate(splits):
        if split in splits[:place]:
            raise TaskFileError(f"split {split[0]} is given twice: give each split once")
    found = []
    for path, (name, labels) in zip(predictions, splits, strict=False):
        found.append(figures(read_predictions(path, labels), labels, name))
    return action_accuracy.mean_of(found)


def figures(
    predicted: Mapping[str, str], labels: Mapping[str, str], split: int
) -> action_accuracy.Split:
    """Return the accuracies of one split.

    Args:
      predicted: predicted classes by video; a video without a prediction counts as wrong.
      labels: true class of each test video.
      split: number of the split.
    """
    return action_accuracy.accuracy(
        list(labels.values()), [predicted.get(video) for video in labels], split
    )


def video_of(name: str) -> str:
    """Return the id of a video from its path in a list.

    >>> video_of("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi")
    'v_ApplyEyeMakeup_g01_c01'
    """
    return _EXTENSION.sub("", name.replace("\\", "/").rpartition("/")[2])


def split_of(name: str) -> int | None:
    """Return the number of UCF101's split from the name of its test list; None for other names.

    Raises:
      TaskFileError: the name is that of a training list.

    >>> split_of("testlist02.txt"), split_of("testlist02.txt.gz")
    (2, 2)
    """
    if _UCF_TRAINING.fullmatch(name):
        raise TaskFileError(
            f"{name} lists training videos, but a split is tested on the others: give its testlist"
        )
    found = _UCF.fullmatch(name)
    return int(found[1]) if found else None


def read_splits(path: Path) -> list[Split]:
    """Read the splits of a file or folder, in the order of their numbers.

    Raises:
      TaskFileError: it has none of the module's formats, or a split has no test video.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        tests = (one for one in path.iterdir() if not _UCF_TRAINING.fullmatch(one.name))
        lists = sorted((number, one) for one in tests if (number := split_of(one.name)))
        splits = [(name, _read_testlist(one)) for name, one in lists] or _read_hmdb_folder(path)
    elif path.suffix == ".csv":
        splits = _read_hmdb_csv(path)
    else:
        splits = [(split_of(path.name) or 1, _read_testlist(path))]
    for name, labels in splits:
        if not labels:
            raise TaskFileError(f"{path}: split {name} has no test video")
    if not splits:
        raise TaskFileError(
            f"{path} has no split: give UCF101's testlist0N.txt or their folder, HMDB51's folder "
            "of <class>_test_splitN.txt, or hmdb51.csv"
        )
    return splits


def _read_testlist(path: pathlib.Path) -> dict[str, str]:
    labels: dict[str, str] = {}
    for where, line in read_lines(path):
        name = line.split()[0]  # UCF101's training lists append the number of the class.
        folder, slash, _ = name.replace("\\", "/").rpartition("/")
        if not slash:
            raise TaskFileError(f"{where}: {shorten(line)} must be CLASS/VIDEO.avi")
        _add(labels, where, name, folder.rpartition("/")[2])
    return labels


def _read_hmdb_folder(folder: pathlib.Path) -> list[Split]:
    splits = collections.defaultdict[int, dict[str, str]](dict)
    for path in sorted(folder.iterdir()):
        if not (found := _HMDB.fullmatch(path.name)):
            continue
        for where, line in read_lines(path):
            fields = line.split()
            if len(fields) != 2 or fields[1] not in {"0", "1", _TESTED}:
                raise TaskFileError(f"{where}: {shorten(line)} must be VIDEO.avi and 0, 1 or 2")
            if fields[1] == _TESTED:
                _add(splits[int(found[2])], where, fields[0], found[1])
    return sorted(splits.items())


def _read_hmdb_csv(path: pathlib.Path) -> list[Split]:
    header, rows = read_table(path)
    numbers = [int(name[5:]) for name in header.values if re.fullmatch(r"split[1-9]", name)]
    if header.values[:2] != ["video_id", "label"] or not numbers:
        raise TaskFileError(f"{header.where}: the header must be video_id,label,split1,…")
    columns = [header.values.index(f"split{name}") for name in numbers]
    splits: list[Split] = [(name, {}) for name in numbers]
    for where, fields in rows:
        for (_, labels), column in zip(splits, columns, strict=True):
            if fields[column] not in {"0", "1", _TESTED}:
                raise TaskFileError(f"{where}: {shorten(fields[column])} must be 0, 1 or 2")
            if fields[column] == _TESTED:
                _add(labels, where, fields[0], fields[1].removesuffix("_test"))
    return splits


def _add(labels: dict[str, str], where: str, name: str, label: str) -> None:
    video = video_of(name)
    if video in labels:
        raise TaskFileError(f"{where}: {video} is a duplicate")
    labels[video] = label


def read_predictions(path: Path, labels: Mapping[str, str]) -> dict[str, str]:
    """Read the predicted class of each video.

    Args:
      path: the file of predictions.
      labels: true class of each test video of the split.

    Raises:
      TaskFileError: the file has none of the module's formats, has a video outside the split, or
        lacks a class.
    """
    if pathlib.Path(path).suffix == ".json":
        return _read_results(path, labels)
    header, rows = read_table(path)
    if header.values[0] != "video_id" or len(header.values) < 2:
        raise TaskFileError(
            f"{header.where}: the header must be video_id,label or video_id,CLASS,CLASS,…"
        )
    classes = header.values[1:]
    if classes == ["label"]:
        return _with_known_classes(path, _read_labels(rows, labels), labels)
    if twice := [name for name, count in collections.Counter(classes).items() if count > 1]:
        raise TaskFileError(f"{header.where}: duplicate columns {list_names(twice)}")
    if lost := sorted(set(labels.values()) - set(classes)):
        raise TaskFileError(f"{header.where}: no column for class {list_names(lost)}")
    views = collections.defaultdict[str, list[list[float]]](list)
    for where, (name, *values) in rows:
        views[_tested(where, name, labels)].append([number(where, value) for value in values])
    return {
        video: action_accuracy.best_class(np.array(of_video), classes)
        for video, of_video in views.items()
    }


def _read_labels(rows: Iterator[Row], labels: Mapping[str, str]) -> dict[str, str]:
    predicted: dict[str, str] = {}
    for where, (name, label) in rows:
        video = _tested(where, name, labels)
        if video in predicted:
            raise TaskFileError(f"{where}: {video} has a label already")
        predicted[video] = label
    return predicted


def _read_results(path: Path, labels: Mapping[str, str]) -> dict[str, str]:
    data = read_json(path)
    results = data.get("results") if isinstance(data, dict) else None
    if not isinstance(results, dict):
        raise TaskFileError(f"{path}: must be an object with 'results', an object by video id")
    predicted: dict[str, str] = {}
    for name, given in results.items():
        where = f"{path}, results[{name!r}]"
        if not isinstance(given, list) or not given:
            raise TaskFileError(f"{where}: must be a list of at least one label")
        scores = []
        for place, one in enumerate(given):
            row = Row(f"{where}[{place}]", one)
            if not isinstance(one, dict) or "score" not in one:
                raise TaskFileError(f"{row.where}: must be an object with 'label' and 'score'")
            scores.append((json_number(row.where, one["score"]), text_of(row, "label")))
        video = _tested(where, name, labels)
        if video in predicted:
            raise TaskFileError(f"{where}: {video} has labels already, under another name")
        predicted[video] = max(scores, key=lambda scored: scored[0])[1]
    return _with_known_classes(path, predicted, labels)


def _with_known_classes(
    path: Path, predicted: dict[str, str], labels: Mapping[str, str]
) -> dict[str, str]:
    """Return the predictions by the names of the split's classes; only their case may differ.

    UCF101 itself writes HandstandPushups and HandStandPushups.
    """
    classes = sorted(set(labels.values()))
    by_case = collections.defaultdict[str, list[str]](list)
    for name in classes:
        by_case[name.lower()].append(name)
    names = {}
    for label in sorted(set(predicted.values())):
        same = [label] if label in by_case[label.lower()] else by_case[label.lower()]
        if len(same) != 1:
            closest = (same or difflib.get_close_matches(label, classes, 1, 0.0))[0]
            raise TaskFileError(
                f"{path}: {shorten(label)} is not a class of the ground truth: the closest is "
                f"{closest}"
            )
        names[label] = same[0]
    return {video: names[label] for video, label in predicted.items()}


def _tested(where: str, name: str, labels: Mapping[str, str]) -> str:
    video = video_of(name)
    if video not in labels:
        raise TaskFileError(
            f"{where}: {shorten(video)} is not a test video of this split: give "
            "the file of its split"
        )
    return video


def write(
    path: Path,
    classes: Sequence[str],
    views: Mapping[str, Float[np.ndarray, "views classes"]],
) -> None:
    """Write the probabilities of each video's clips and crops, without loss of precision.

    Args:
      path: path of the CSV file.
      classes: names of the classes, the columns.
      views: probabilities by video, one row per clip or crop.
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["video_id", *classes])
        for video, rows in views.items():
            lines.writerows([video, *map(str, row)] for row in rows)


def table(found: action_accuracy.Splits) -> str:
    """Format the accuracies as a table for the terminal."""
    lines = [f"{'action recognition':<35}{'top-1':>7}{'classes':>9}"]
    rows = [
        (f"split {one['split']}, {one['videos']:,} videos", one["top1"], one["mean_class"])
        for one in found["splits"]
    ]
    if len(rows) > 1:
        rows.append((f"mean of {len(rows)} splits", found["top1"], found["mean_class"]))
    lines += [f"  {name:<33}{top1:7.2f}{mean_class:9.2f}" for name, top1, mean_class in rows]
    if missing := sum(one["missing"] for one in found["splits"]):
        lines.append(f"  {missing:,} videos without a prediction count as wrong")
    return "\n".join(lines)
