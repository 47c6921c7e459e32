"""AVA's files: CSV without a header, and the list of classes.

annotations  video,second,x1,y1,x2,y2,action,person: one row per label; boxes in shares of width
             and height, actions 1 … 80. The person may be missing. Box and action may be missing
             too: the keyframe then shows nobody.
detections   the same columns with a required score instead of the person
boxes        a detector's boxes of people: columns as in detections, with an empty or missing action
exclusions   video,second: keyframes that the benchmark excludes
classes      …pbtxt, of which the `id` or `label_id` lines count: the 60 evaluated classes
"""

import csv
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from jaxtyping import Float, Int

from trainer.evaluation.box_detection import STYLES, Boxes, Detections, average_precisions
from trainer.evaluation.prediction_files import (
    Path,
    Row,
    TaskFileError,
    number,
    read_csv,
    read_text,
    shorten,
    single_path,
)

ACTIONS = 80

# The classes with at least 25 instances each in validation and test, from
# ava_action_list_v2.2_for_activitynet_2019.pbtxt.
JUDGED = (
    *(1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 20, 22, 24, 26, 27, 28, 29, 30, 34),
    *(36, 37, 38, 41, 43, 45, 46, 47, 48, 49, 51, 52, 54, 56, 57, 58, 59, 60, 61, 62, 63, 64),
    *(65, 66, 67, 68, 69, 70, 72, 73, 74, 76, 77, 78, 79, 80),
)

# Maximum distance of a box beyond the picture's edges, in widths and heights of the picture.
_BEYOND = 1.0

_CLASS_ID = re.compile(r"^\s*(?:label_)?id:\s*(\d+)\s*$", re.MULTILINE)


Keyframe = tuple[str, int]
"""A video and a second."""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in shares of width and height."""


class Labelled(NamedTuple):
    """Annotations or detections: n rows, stored as columns since AVA has millions of detections."""

    keyframes: list[Keyframe]  # the distinct keyframes
    keyframe: Int[np.ndarray, " n"]  # a row's index into `keyframes`
    box: Float[np.ndarray, "n 4"]
    action: Int[np.ndarray, " n"]  # 1 … 80
    score: Float[np.ndarray, " n"]  # score of a detection; 1 for an annotation


class Figures(TypedDict):
    """The mean average precision of both scripts, in percent."""

    images: int  # keyframes with true boxes
    boxes: int  # true boxes, one per label
    detections: int
    classes: int  # evaluated classes
    official: float
    slowfast: float
    unlabelled: int  # detections on keyframes that are not annotated; wrong in SlowFast's style
    without_area: int  # detections without area, or reversed, which match nothing
    # Only for detections from a run:
    boxes_from: NotRequired[str]  # a detector's file, or "ground truth", which is an upper bound
    missing: NotRequired[int]  # the detector's keyframes that the snapshot lacks


def as_columns(rows: Iterable[tuple[Keyframe, Box, int, float]]) -> Labelled:
    """Convert rows of keyframe, box, action and score to columns, in the same order.

    >>> as_columns([(("a", 902), (0.0, 0.0, 0.5, 1.0), 12, 0.25)]).box.tolist()
    [[0.0, 0.0, 0.5, 1.0]]
    """
    places: dict[Keyframe, int] = {}
    keyframes, boxes, actions, scores = array("i"), array("d"), array("i"), array("d")
    for keyframe, box, action, score in rows:
        keyframes.append(places.setdefault(keyframe, len(places)))
        boxes.extend(box)
        actions.append(action)
        scores.append(score)
    return Labelled(
        list(places),
        np.asarray(keyframes),
        np.asarray(boxes).reshape(-1, 4),
        np.asarray(actions),
        np.asarray(scores),
    )


def read_labelled(path: Path, scored: bool) -> tuple[Labelled, set[Keyframe]]:
    """Read annotations or detections; return their rows and the keyframes that show nobody.

    Args:
      path: the file.
      scored: True if the eighth column is a required score. False if it is an optional person,
        which is ignored.

    Raises:
      TaskFileError: a row has another format; names the row.
    """
    nobody: set[Keyframe] = set()

    def rows() -> Iterator[tuple[Keyframe, Box, int, float]]:
        for where, fields in _rows(path):
            if len(fields) == 2:
                nobody.add((fields[0], _second(where, fields[1])))
                continue
            if len(fields) != 8 and (scored or len(fields) != 7):
                wanted = "8 columns" if scored else "7 or 8 columns"
                raise TaskFileError(f"{where}: {len(fields)} columns, expected {wanted}")
            video, second, *box, action, score = (*fields, "")[:8]
            corners = _box(where, box, ordered=not scored)
            if min(corners) < -_BEYOND or max(corners) > 1 + _BEYOND:
                raise TaskFileError(
                    f"{where}: the box {','.join(box)} is far outside the frame: give fractions "
                    "of its width and height in 0 … 1, not pixels"
                )
            if not re.fullmatch("0*[0-9]{1,2}", action.strip()[:20]) or not (
                1 <= int(action) <= ACTIONS
            ):
                raise TaskFileError(
                    f"{where}: {shorten(action)} must be an action in 1 … {ACTIONS}"
                )
            keyframe = (video, _second(where, second))
            yield keyframe, corners, int(action), number(where, score) if scored else 1.0

    return as_columns(rows()), nobody


def read_boxes(path: Path, least_score: float) -> dict[Keyframe, list[Box]]:
    """Read a detector's boxes from a minimum score on, without duplicates, by keyframe.

    Args:
      path: the file.
      least_score: minimum score of a box.

    Raises:
      TaskFileError: a row has another format; names the row.
    """
    found: dict[Keyframe, dict[Box, None]] = {}
    for where, fields in _rows(path):
        if len(fields) not in (7, 8):
            raise TaskFileError(
                f"{where}: {len(fields)} columns, expected video,second,x1,y1,x2,y2,,score, with "
                "or without the empty one"
            )
        video, second, *corners = fields[:6]
        keyframe, box = (video, _second(where, second)), _box(where, corners)
        if not 0 <= min(box) <= max(box) <= 1:
            raise TaskFileError(f"{where}: the box must be within 0 … 1, got {','.join(corners)}")
        score = number(where, fields[-1])
        if not 0 <= score <= 1:
            raise TaskFileError(f"{where}: {shorten(fields[-1])} must be a score in 0 … 1")
        if score >= least_score:
            found.setdefault(keyframe, {})[box] = None
    return {keyframe: list(boxes) for keyframe, boxes in found.items()}


def read_exclusions(path: Path) -> set[Keyframe]:
    """Read the keyframes that the benchmark excludes.

    Raises:
      TaskFileError: a row does not have two columns, or its second is not a number.
    """
    found = set()
    for where, fields in _rows(path):
        if len(fields) != 2:
            raise TaskFileError(f"{where}: {len(fields)} columns, expected video,second")
        found.add((fields[0], _second(where, fields[1])))
    return found


def read_classes(path: Path) -> tuple[int, ...]:
    """Read the evaluated classes.

    Raises:
      TaskFileError: the file lists no class, or one outside 1 … 80.
    """
    ids = tuple(found for found in _CLASS_ID.findall(read_text(path)))
    if not ids:
        raise TaskFileError(f"{path}: no line such as `  id: 12`: give a list of classes")
    for found in ids:
        if not re.fullmatch("[0-9]{1,2}", found) or not 1 <= int(found) <= ACTIONS:
            raise TaskFileError(f"{path}: {shorten(found)} must be actions in 1 … {ACTIONS}")
    ids = tuple(dict.fromkeys(map(int, ids)))
    return ids


def write_detections(path: Path, detections: Labelled) -> None:
    """Write detections in the official format."""
    keyframes, *columns = detections
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for place, box, action, score in zip(*columns, strict=True):
            video, second = keyframes[place]
            shown = map(repr, box.tolist())  # repr gives the fewest digits that restore the value.
            rows.writerow([video, f"{second:04d}", *shown, action, repr(float(score))])


def score(predictions: Sequence[Path], truth: Sequence[Path]) -> Figures:
    """Score a file of detections.

    Args:
      predictions: one file.
      truth: annotations. Optionally also exclusions, with `excluded` in the file name, which are
        united, and one list of classes, `.pbtxt`. The default classes are the 60 of AVA v2.2.

    Raises:
      TaskFileError: a file has another format, or there is not one file each of detections and
        annotations, or there are two lists of classes.
    """
    found = single_path(predictions, "detections")
    excluded: set[Keyframe] = set()
    lists, annotations = [], []
    for path in truth:
        if ".pbtxt" in str(path):
            lists.append(path)
        elif "excluded" in str(path).rpartition("/")[2]:
            excluded |= read_exclusions(path)
        else:
            annotations.append(path)
    classes = read_classes(single_path(lists, "classes")) if lists else JUDGED
    if len(annotations) != 1:
        raise TaskFileError(
            f"--truth requires one file of annotations, got {len(annotations)}; excluded "
            "keyframes must have `excluded` in the file's name, the list of classes the suffix "
            ".pbtxt"
        )
    true, nobody = read_labelled(annotations[0], scored=False)
    detections, without = read_labelled(found, scored=True)
    if not len(detections.score) and not without:
        raise TaskFileError(f"{found} has no detection")
    return figures(detections, true, nobody, excluded, classes)


def figures(
    detections: Labelled,
    true: Labelled,
    nobody: Iterable[Keyframe] = (),
    excluded: Iterable[Keyframe] = (),
    classes: Sequence[int] = JUDGED,
) -> Figures:
    """Return the metrics of detections.

    Args:
      detections: detections of all classes.
      true: annotations of all classes. Boxes of classes that are not evaluated also make a keyframe
        an annotated one.
      nobody: annotated keyframes without boxes.
      excluded: keyframes that the benchmark excludes.
      classes: evaluated classes.

    Raises:
      TaskFileError: no true box is of an evaluated class on a keyframe that is not excluded.
    """
    judged = {action: place for place, action in enumerate(classes)}
    images: dict[Keyframe, int] = {}
    for key in (*true.keyframes, *detections.keyframes):
        images.setdefault(key, len(images))
    left_out, annotated = (
        np.array([images[key] for key in keys if key in images], int)
        for keys in (set(excluded), {*true.keyframes, *nobody})
    )

    def those_judged(rows: Labelled) -> Detections:
        actions, of_row = np.unique(rows.action, return_inverse=True)
        label = np.array([judged.get(action, -1) for action in actions.tolist()], int)[of_row]
        image = np.array([images[key] for key in rows.keyframes], int)[rows.keyframe]
        which = label >= 0
        return Detections(image[which], label[which], rows.box[which], rows.score[which])

    of_true = Boxes(*those_judged(true)[:3])
    found = those_judged(detections)
    if np.all(np.isin(of_true.image, left_out)):
        raise TaskFileError(
            f"no annotated box is of the {len(judged)} evaluated classes and not excluded"
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
        "boxes": len(of_true.label),
        "detections": len(found.label),
        "classes": len(judged),
        "official": means["official"],
        "slowfast": means["slowfast"],
        "unlabelled": int(np.sum(~np.isin(found.image, annotated))),
        "without_area": int(np.sum(np.any(found.box[:, :2] >= found.box[:, 2:], axis=1))),
    }


def table(found: Figures) -> str:
    """Format the metrics as a table for the terminal."""
    of_boxes = []
    if "boxes_from" in found:
        of_boxes.append(f"  on boxes of {found['boxes_from']}")
        if missing := found.get("missing"):
            of_boxes.append(
                f"  {missing:,} more keyframes with such boxes are not in the snapshot: build it "
                "with that file among --annotations, or SlowFast's metric is too high"
            )
    of_others = []
    if found["unlabelled"]:
        of_others.append(
            f"  {found['unlabelled']:,} detections are on keyframes without annotations: SlowFast "
            "counts them as wrong"
        )
    if found["without_area"]:
        of_others.append(
            f"  {found['without_area']:,} detections have no area, or end before they start: both "
            "scripts ignore them"
        )
    return "\n".join(
        [
            f"spatiotemporal, {found['images']:,} keyframes, {found['classes']} classes"
            f"{'mAP@0.5':>16}",
            f"  official (50 detections per frame){found['official']:23.2f}",
            f"  SlowFast (all detections){found['slowfast']:32.2f}",
            *of_boxes,
            *of_others,
        ]
    )


def _rows(path: Path) -> Iterator[Row]:
    for where, fields in read_csv(path):
        while fields and not fields[-1]:  # A row of a keyframe with nobody ends in commas.
            fields.pop()
        if fields:
            yield Row(where, fields)


def _box(where: str, corners: Sequence[str], *, ordered: bool = True) -> Box:
    x1, y1, x2, y2 = (number(where, value) for value in corners)
    if ordered and (x1 > x2 or y1 > y2):
        raise TaskFileError(f"{where}: the box ends before it starts: {','.join(corners)}")
    return x1, y1, x2, y2


def _second(where: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text.strip()):
        raise TaskFileError(f"{where}: {shorten(text)} must be a second such as 0902")
    return int(text)
