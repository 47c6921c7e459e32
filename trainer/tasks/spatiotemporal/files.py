"""AVA's files, which are CSV without a header.

annotations  video,second,x1,y1,x2,y2,action,person: a row a label; boxes in shares of width and
             height, actions 1 … 80. The person may be missing, and so may box and action: then
             the keyframe is known to show nobody.
detections   the same with a score instead of the person, which must be there
boxes        of people that a detector found: the same without an action, whose column may be empty
             or missing
exclusions   video,second: keyframes that the benchmark excludes
classes      …pbtxt, of which the `id` or `label_id` lines count: the 60 classes that are judged
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

from trainer.tasks.files import Path, Row, TaskFileError, number, read_csv, read_text, short
from trainer.tasks.spatiotemporal.metrics import STYLES, Boxes, Detections, average_precisions

ACTIONS = 80

# Those with at least 25 instances each in validation and test, as
# ava_action_list_v2.2_for_activitynet_2019.pbtxt lists them.
JUDGED = (
    *(1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 20, 22, 24, 26, 27, 28, 29, 30, 34),
    *(36, 37, 38, 41, 43, 45, 46, 47, 48, 49, 51, 52, 54, 56, 57, 58, 59, 60, 61, 62, 63, 64),
    *(65, 66, 67, 68, 69, 70, 72, 73, 74, 76, 77, 78, 79, 80),
)

_CLASS_ID = re.compile(r"^\s*(?:label_)?id:\s*(\d+)\s*$", re.MULTILINE)


Keyframe = tuple[str, int]
"""A video and a second."""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in shares of width and height."""


class Labelled(NamedTuple):
    """A row of annotations or detections."""

    video: str
    second: int
    box: Box
    action: int  # 1 … 80
    score: float = 1.0  # of a detection


class Figures(TypedDict):
    """Mean average precision in percent, as both scripts have it."""

    images: int  # keyframes with true boxes
    boxes: int  # true ones, a label each
    detections: int
    classes: int  # that are judged
    official: float
    slowfast: float
    unlabelled: int  # detections on keyframes that are not annotated: SlowFast calls them wrong
    # Of a run that made the detections:
    boxes_from: NotRequired[str]  # a detector's file, or "ground truth", which bounds its figures
    missing: NotRequired[int]  # the detector's keyframes that the snapshot does not have


def read_labelled(path: Path, scored: bool) -> tuple[list[Labelled], set[Keyframe]]:
    """The rows of annotations, or of detections; and the keyframes that show nobody.

    Args:
      path: the file.
      scored: whether the eighth column is a score, which must be there, or a person, unread.

    Raises:
      TaskFileError: a row is not of the form; names it.
    """
    found: list[Labelled] = []
    nobody: set[Keyframe] = set()
    for where, fields in _rows(path):
        if len(fields) == 2:
            nobody.add((fields[0], _second(where, fields[1])))
            continue
        if len(fields) != 8 and (scored or len(fields) != 7):
            wanted = "8 columns" if scored else "7 or 8 columns"
            raise TaskFileError(f"{where}: {len(fields)} columns, wanted {wanted}")
        video, second, *box, action, score = (*fields, "")[:8]
        corners = _box(where, box, ordered=not scored)
        if not action.strip().isdecimal() or not 1 <= int(action) <= ACTIONS:
            raise TaskFileError(f"{where}: {short(action)} is none of the actions 1 … {ACTIONS}")
        found.append(
            Labelled(
                video,
                _second(where, second),
                corners,
                int(action),
                number(where, score) if scored else 1.0,
            )
        )
    return found, nobody


def read_boxes(path: Path, least_score: float) -> dict[Keyframe, list[Box]]:
    """The boxes that a detector found and is sure of, each once, by keyframe.

    Args:
      path: the file.
      least_score: of the boxes that are taken.

    Raises:
      TaskFileError: a row is not of the form; names it.
    """
    found: dict[Keyframe, dict[Box, None]] = {}
    for where, fields in _rows(path):
        if len(fields) not in (7, 8):
            raise TaskFileError(
                f"{where}: {len(fields)} columns, wanted video,second,x1,y1,x2,y2,,score, with or "
                "without the empty one"
            )
        video, second, *corners = fields[:6]
        keyframe, box = (video, _second(where, second)), _box(where, corners)
        if not 0 <= min(box) <= max(box) <= 1:
            raise TaskFileError(f"{where}: the box is not within 0 … 1: {','.join(corners)}")
        score = number(where, fields[-1])
        if not 0 <= score <= 1:
            raise TaskFileError(f"{where}: {short(fields[-1])} is no score from 0 to 1")
        if score >= least_score:
            found.setdefault(keyframe, {})[box] = None
    return {keyframe: list(boxes) for keyframe, boxes in found.items()}


def read_exclusions(path: Path) -> set[Keyframe]:
    """Videos and seconds that the benchmark excludes.

    Raises:
      TaskFileError: a row has other than two columns.
    """
    found = set()
    for where, fields in _rows(path):
        if len(fields) != 2:
            raise TaskFileError(f"{where}: {len(fields)} columns, wanted video,second")
        found.add((fields[0], _second(where, fields[1])))
    return found


def read_classes(path: Path) -> tuple[int, ...]:
    """The classes that are judged.

    Raises:
      TaskFileError: it lists none.
    """
    ids = tuple(int(found) for found in _CLASS_ID.findall(read_text(path)))
    if not ids:
        raise TaskFileError(f"{path}: no line such as `  id: 12`: see that it is a list of classes")
    return ids


def write_detections(path: Path, detections: Iterable[Labelled]) -> None:
    """Writes detections in the official form."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for one in detections:
            shown = map(repr, one.box)  # the fewest digits that tell it apart
            rows.writerow([one.video, f"{one.second:04d}", *shown, one.action, repr(one.score)])


def score(predictions: Sequence[Path], truth: Sequence[Path]) -> Figures:
    """Scores a file of detections.

    Args:
      predictions: the one file.
      truth: annotations; and, if given, exclusions, whose name has `excluded`, and the list of
        the classes, `.pbtxt` (without it: the 60 of AVA v2.2).

    Raises:
      TaskFileError: a file is not of its form, or there are several of a kind.
    """
    if len(predictions) != 1:
        raise TaskFileError(f"spatiotemporal is scored with one file, got {len(predictions)}")
    excluded: set[Keyframe] = set()
    classes: tuple[int, ...] = JUDGED
    annotations = []
    for path in truth:
        if ".pbtxt" in str(path):
            classes = read_classes(path)
        elif "excluded" in str(path).rpartition("/")[2]:
            excluded = read_exclusions(path)
        else:
            annotations.append(path)
    if len(annotations) != 1:
        raise TaskFileError(
            f"--truth wants one file of annotations, got {len(annotations)}; the file of excluded "
            "keyframes is known by `excluded` in its name, the list of classes by .pbtxt"
        )
    true, nobody = read_labelled(annotations[0], scored=False)
    detections, without = read_labelled(predictions[0], scored=True)
    if not detections and not without:
        raise TaskFileError(f"{predictions[0]} has no detection")
    return figures(detections, true, nobody, excluded, classes)


def figures(
    detections: Sequence[Labelled],
    true: Sequence[Labelled],
    nobody: Iterable[Keyframe] = (),
    excluded: Iterable[Keyframe] = (),
    classes: Sequence[int] = JUDGED,
) -> Figures:
    """The figures of detections.

    Args:
      detections: of all classes.
      true: of all classes: boxes of those that are not judged, too, make a keyframe an annotated
        one.
      nobody: keyframes that are annotated and have no box.
      excluded: keyframes that the benchmark excludes.
      classes: those that are judged.

    Raises:
      TaskFileError: no true box is of a class that is judged.
    """
    judged = {action: place for place, action in enumerate(classes)}
    known = {(one.video, one.second) for one in true}.union(nobody)
    true = [one for one in true if one.action in judged]
    detections = [one for one in detections if one.action in judged]
    excluded = set(excluded)
    if all((one.video, one.second) in excluded for one in true):
        raise TaskFileError(
            f"the annotations have no box of the {len(judged)} judged classes that is not excluded"
        )
    images: dict[Keyframe, int] = {}
    for one in (*true, *detections):
        images.setdefault((one.video, one.second), len(images))

    def columns(rows: Sequence[Labelled]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (
            np.array([images[one.video, one.second] for one in rows], int),
            np.array([judged[one.action] for one in rows], int),
            np.array([one.box for one in rows], np.float64).reshape(-1, 4),
        )

    of_true = Boxes(*columns(true))
    found = Detections(*columns(detections), np.array([one.score for one in detections]))
    left_out, annotated = (
        np.array([images[key] for key in keys if key in images], int) for keys in (excluded, known)
    )
    means = {
        name: 100.0
        * float(
            np.nanmean(average_precisions(of_true, found, len(judged), style, left_out, annotated))
        )
        for name, style in STYLES.items()
    }
    return {
        "images": len(np.unique(of_true.image)),
        "boxes": len(true),
        "detections": len(detections),
        "classes": len(judged),
        "official": means["official"],
        "slowfast": means["slowfast"],
        "unlabelled": int(np.sum(~np.isin(found.image, annotated))),
    }


def table(found: Figures) -> str:
    """The figures for a person to read on a terminal."""
    of_boxes = []
    if "boxes_from" in found:
        of_boxes.append(f"  on boxes of {found['boxes_from']}")
        if missing := found.get("missing"):
            of_boxes.append(
                f"  {missing:,} more keyframes with such boxes are not in the snapshot: build it "
                "with that file among --annotations, or SlowFast's figure is too high"
            )
    return "\n".join(
        [
            f"spatiotemporal, {found['images']:,} keyframes, {found['classes']} classes"
            f"{'mAP@0.5':>16}",
            f"  official (50 detections a keyframe){found['official']:22.2f}",
            f"  as SlowFast (all of them){found['slowfast']:32.2f}",
            *of_boxes,
        ]
    )


def _rows(path: Path) -> Iterator[Row]:
    for where, fields in read_csv(path):
        while fields and not fields[-1]:  # ends in commas where there is nobody
            fields.pop()
        if fields:
            yield Row(where, fields)


def _box(where: str, corners: Sequence[str], *, ordered: bool = True) -> Box:
    x1, y1, x2, y2 = (number(where, value) for value in corners)
    if ordered and (x1 > x2 or y1 > y2):
        raise TaskFileError(f"{where}: the box ends before it starts: {','.join(corners)}")
    return x1, y1, x2, y2


def _second(where: str, text: str) -> int:
    if not text.strip().isdecimal():
        raise TaskFileError(f"{where}: {short(text)} is no second such as 0902")
    return int(text)
