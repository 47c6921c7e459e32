"""Temporal localisation's files: ActivityNet's, and those published with G-TAD.

Ground truth is the official file,

  {"version": …, "taxonomy": …, "database": {ID: {"subset": "validation", "duration": 82.73,
   "annotations": [{"segment": [6.195, 77.731], "label": "Ballet"}, …]}, …}}

or G-TAD's anet_anno_action.json, where videos are v_ID and have no subset,

  {"v_ID": {"duration_second": 82.73, "duration_frame": 2067, "feature_frame": 2064,
            "annotations": [… as above]}, …}

with video_info_new.csv, which gives their subsets in its columns `video` and `subset`. G-TAD and
its successors use 4,728 of the 4,926 official validation videos, and report metrics on those. No
prediction may be of another video, since a prediction of an unknown video counts as wrong.

Predictions have the official format,

  {"version": …, "external_data": …, "results": {ID: [{"label", "score", "segment"}, …], …}}

Times are in seconds. Ids have no `v_` unless stated.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from trainer.evaluation.prediction_files import (
    Path,
    TaskFileError,
    json_number,
    list_names,
    read_json,
    read_table,
    shorten,
    single_path,
)
from trainer.evaluation.segment_detection import (
    THRESHOLDS,
    Instances,
    Predictions,
    average_precisions,
)
from trainer.finite import finite

_SUBSET = "validation"
_PUBLISHED = "G-TAD's annotations"  # the kind of file in messages


class Action(NamedTuple):
    """A labelled segment of a video, in seconds."""

    label: str
    start: float
    end: float


class Found(NamedTuple):
    """A prediction: a scored, labelled segment of a video, in seconds."""

    label: str
    score: float
    start: float
    end: float


class Video(NamedTuple):
    """The annotation of a video."""

    duration: float  # seconds
    actions: list[Action]
    subset: str | None = None  # None in G-TAD's file
    # Share of the video that G-TAD's features cover, feature_frame / duration_frame.
    covered: float = 1.0


@dataclasses.dataclass(frozen=True)
class Truth:
    """A set of annotated videos, with its name in the metrics."""

    name: str
    videos: Mapping[str, Video]
    labels: frozenset[str]  # all classes, including those that none of the videos shows


def truth_of(name: str, annotated: Mapping[str, Video], ids: Iterable[str]) -> Truth:
    """Return the annotated videos that have one of the given ids.

    Args:
      name: name of the set in the metrics.
      annotated: all annotated videos; they determine the classes.
      ids: ids of the videos in the set.
    """
    kept = set(ids)
    return Truth(
        name,
        {one: video for one, video in annotated.items() if one in kept},
        frozenset(one.label for video in annotated.values() for one in video.actions),
    )


class Figures(TypedDict):
    """The metrics of predictions on one set of videos, with mAP in percent."""

    truth: str
    videos: int
    instances: int
    classes: int
    predictions: int
    unknown_videos: int  # predicted videos outside the set; all their predictions are wrong
    past_end: int  # predictions that start after the end of their video
    average_mAP: float
    mAP: dict[str, float]  # mAP by threshold, "0.50" … "0.95"


class Localisation(TypedDict):
    """The metrics of each set of videos with ground truth."""

    sets: list[Figures]
    external_data: Any  # the predictions' own field on external data, unchanged


# --- ground truth ---


def read_annotations(path: Path) -> dict[str, Video]:
    """Read the videos of the official file or of anet_anno_action.json, by id without `v_`.

    The official file's videos without annotations are left out: those of the test set are withheld.

    Raises:
      TaskFileError: the file has neither format.
    """
    data = as_object(str(path), read_json(path))
    if "database" in data:
        entries = as_object(f"{path}, 'database'", data["database"])
        return {
            name: _official_video(f"{path}, video {shorten(name)}", entry)
            for name, entry in entries.items()
            if not isinstance(entry, dict) or "annotations" in entry
        }
    return {
        name.removeprefix("v_"): _published_video(f"{path}, video {shorten(name)}", name, entry)
        for name, entry in data.items()
    }


def _official_video(where: str, entry: Any) -> Video:
    entry = as_object(where, entry)
    subset = entry.get("subset")
    if not isinstance(subset, str) or not subset:
        raise TaskFileError(f"{where}: 'subset' must be a name, got {subset!r:.80}")
    seconds = json_number(f"{where}, 'duration'", entry.get("duration"))
    return Video(seconds, _actions(where, entry), subset)


def _published_video(where: str, name: str, entry: Any) -> Video:
    entry = as_object(where, entry)
    if not name.startswith("v_") or "duration_second" not in entry:
        raise TaskFileError(
            f"{where}: not a format of ActivityNet (with 'database') nor of G-TAD's "
            "anet_anno_action.json (with 'duration_second' for each v_…)"
        )
    seconds, frames, used = (
        json_number(f"{where}, {name!r}", entry.get(name))
        for name in ("duration_second", "duration_frame", "feature_frame")
    )
    if frames <= 0:
        raise TaskFileError(f"{where}: 'duration_frame' must be 1 or more, got {frames}")
    return Video(seconds, _actions(where, entry), covered=used / frames)


def _actions(where: str, entry: dict[str, Any]) -> list[Action]:
    return [
        Action(label, *segment)
        for label, segment in (
            _labelled(f"{where}, annotation {place}", one)
            for place, one in enumerate(as_list(where, entry.get("annotations")))
        )
    ]  # ActivityNet has three instances without length, which no prediction can match.


def read_subset(path: Path, subset: str = _SUBSET) -> set[str]:
    """Read the ids, without `v_`, of a subset's videos from video_info_new.csv.

    Raises:
      TaskFileError: the file lacks a column `video` or `subset`, or has no video of that subset.
    """
    header, rows = read_table(path)
    if lost := [name for name in ("video", "subset") if name not in header.values]:
        raise TaskFileError(f"{header.where}: the header lacks {list_names(lost)}")
    video, of = header.values.index("video"), header.values.index("subset")
    ids = {fields[video].removeprefix("v_") for _, fields in rows if subset in fields[of]}
    if not ids:
        raise TaskFileError(f"{path} has no video of the subset {subset!r}")
    return ids


def read_truths(paths: Sequence[Path]) -> list[Truth]:
    """Read the sets of videos to score on from the given files.

    The official file gives one set, anet_anno_action.json another. The latter needs
    video_info_new.csv, or the official file, to select the validation videos. The official file
    with video_info_new.csv also gives both sets.

    Raises:
      TaskFileError: a file has none of these formats, two files are of one kind, or the files have
        no ground truth.
    """
    listed: set[str] | None = None
    official: dict[str, Video] = {}
    published: dict[str, Video] = {}
    path_of: dict[str, Path] = {}
    for path in paths:
        if str(path).endswith(".csv"):
            kind, listed = "video_info_new.csv", read_subset(path)
        else:
            videos = read_annotations(path)
            if any(video.subset for video in videos.values()):
                kind, official = "ActivityNet's annotations", videos
            else:
                kind, published = _PUBLISHED, videos
        if kind in path_of:
            single_path([path_of[kind], path], kind)
        path_of[kind] = path
    if not official and not published:
        raise TaskFileError("no ground truth: give ActivityNet's JSON file")
    validated = {name for name, video in official.items() if video.subset == _SUBSET}
    truths = [truth_of("official", official, validated)] if official else []
    if published or listed:
        if not official and listed is None:
            raise TaskFileError(
                f"{path_of[_PUBLISHED]}: G-TAD's annotations do not list the validation videos: "
                "give video_info_new.csv too, or ActivityNet's own file"
            )
        ids = validated if listed is None else listed
        truths.append(truth_of("G-TAD", published or official, ids))
    for truth in truths:
        if not any(video.actions for video in truth.videos.values()):
            raise TaskFileError(f"the ground truth ({truth.name}) has no {_SUBSET} instance")
    return truths


# --- predictions ---


def read_predictions(path: Path) -> tuple[dict[str, list[Found]], Any]:
    """Read the predictions of each video, and the file's field on external data.

    Raises:
      TaskFileError: the file does not have the official format; names video and prediction.
    """
    data = as_object(str(path), read_json(path))
    if lost := [name for name in ("version", "external_data", "results") if name not in data]:
        raise TaskFileError(f"{path}: {list_names(lost)} missing: give a file of predictions")
    results = {}
    for video, entries in as_object(f"{path}, 'results'", data["results"]).items():
        where = f"{path}, video {shorten(video)}"
        found = []
        for place, entry in enumerate(as_list(where, entries)):
            of = f"{where}, prediction {place}"
            label, segment = _labelled(of, entry)
            found.append(Found(label, json_number(of, entry.get("score")), *segment))
        results[video] = found
    try:
        json.dumps(data["external_data"], allow_nan=False)  # The metrics repeat it.
    except ValueError:
        raise TaskFileError(f"{path}, 'external_data': has a non-finite number") from None
    return results, data["external_data"]


def write_predictions(
    path: Path, results: Mapping[str, Iterable[Found]], external_data: Mapping[str, Any]
) -> None:
    """Write predictions in the official format.

    Args:
      path: path of the JSON file.
      results: predictions of each video.
      external_data: `used`, and in `details` the data used besides the training videos.
    """
    listed = {
        video: [
            {"label": one.label, "score": one.score, "segment": [one.start, one.end]}
            for one in found
        ]
        for video, found in results.items()
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(
            {"version": "VERSION 1.3", "external_data": external_data, "results": listed}, file
        )


# --- scoring ---


def score(predictions: Sequence[Path], truth: Sequence[Path]) -> Localisation:
    """Score a file of predictions on each set of videos in the ground truth.

    Raises:
      TaskFileError: a file has another format, or the files do not match.
    """
    path = single_path(predictions, "predictions")
    truths = read_truths(truth)
    results, external_data = read_predictions(path)
    return {
        "sets": [figures(results, one, str(path)) for one in truths],
        "external_data": external_data,
    }


def figures(
    results: Mapping[str, Sequence[Found]], truth: Truth, where: str = "predictions"
) -> Figures:
    """Return the metrics of predictions on a set of videos.

    Args:
      results: predictions of each video.
      truth: the annotated videos.
      where: name of the predictions in messages.

    Raises:
      TaskFileError: a label is not among the classes, or the ids have the prefix `v_`.
    """
    for name, predicted in results.items():
        finite(f"{where}, video {shorten(name)}", [one[1:] for one in predicted])
    videos = {video: place for place, video in enumerate(truth.videos)}
    unknown = [video for video in results if video not in videos]
    if unknown and len(unknown) == len(results) and unknown[0].removeprefix("v_") in videos:
        raise TaskFileError(f"{where}: give video ids without v_, got {shorten(unknown[0])}")
    labels = sorted({one.label for video in truth.videos.values() for one in video.actions})
    classes = {label: place for place, label in enumerate(labels)}

    true = [
        (videos[name], classes[one.label], one.start, one.end)
        for name, video in truth.videos.items()
        for one in video.actions
    ]
    found = []
    for name, predicted in results.items():
        place = videos.get(name, -1)
        for one in predicted:
            if one.label not in truth.labels:
                raise TaskFileError(
                    f"{where}, video {shorten(name)}: {shorten(one.label)} is not one of the "
                    f"{len(truth.labels)} classes of the ground truth ({truth.name})"
                )
            found.append((place, classes.get(one.label, -1), one.start, one.end, one.score))
    of_true, of_found = np.array(true, np.float64), np.array(found, np.float64).reshape(-1, 5)
    ap = average_precisions(
        Instances(of_true[:, 0].astype(int), of_true[:, 1].astype(int), of_true[:, 2:4]),
        Predictions(
            of_found[:, 0].astype(int), of_found[:, 1].astype(int), of_found[:, 2:4], of_found[:, 4]
        ),
        len(classes),
    )
    means = 100.0 * np.mean(ap, axis=1)
    return {
        "truth": truth.name,
        "videos": len(videos),
        "instances": len(true),
        "classes": len(classes),
        "predictions": len(found),
        "unknown_videos": len(unknown),
        "past_end": sum(
            one.start > video.duration
            for name, video in truth.videos.items()
            for one in results.get(name, ())
        ),
        "average_mAP": float(np.mean(means)),
        "mAP": {f"{at:.2f}": float(value) for at, value in zip(THRESHOLDS, means, strict=True)},
    }


def table(found: Localisation) -> str:
    """Format the metrics as a table for the terminal."""
    lines = [f"{'localisation, mAP at tIoU':<44}{'0.50':>7}{'0.75':>7}{'0.95':>7}{'mean':>7}"]
    for one in found["sets"]:
        name = f"{one['truth']}: {one['videos']:,} videos, {one['instances']:,} instances"
        shown = (*(one["mAP"][at] for at in ("0.50", "0.75", "0.95")), one["average_mAP"])
        lines.append(f"  {name:<42}" + "".join(f"{value:7.2f}" for value in shown))
        if unknown := one["unknown_videos"]:
            lines.append(
                f"    {unknown:,} predicted videos are not among these: their predictions count "
                "as wrong"
            )
        if past_end := one["past_end"]:
            lines.append(
                f"    {past_end:,} of the {one['predictions']:,} predictions start after their "
                "video has ended: give times in seconds"
            )
    used = found["external_data"]
    if isinstance(used, dict) and used.get("used"):
        lines.append(f"  with external data: {used.get('details', '')}")
    return "\n".join(lines)


# --- parts of JSON ---


def as_object(where: str, value: Any) -> dict[str, Any]:
    """Return an object of JSON, or raise TaskFileError."""
    if not isinstance(value, dict):
        raise TaskFileError(f"{where}: must be an object, got {shorten(value)}")
    return value


def as_list(where: str, value: Any) -> list[Any]:
    """Return a list of JSON, or raise TaskFileError."""
    if not isinstance(value, list):
        raise TaskFileError(f"{where}: must be a list, got {shorten(value)}")
    return value


def _labelled(where: str, entry: Any) -> tuple[str, tuple[float, float]]:
    """Return a label, and the start and end of its segment."""
    if not isinstance(entry, dict):
        raise TaskFileError(f"{where}: must be an object, got {shorten(entry)}")
    label, segment = entry.get("label"), entry.get("segment")
    if not isinstance(label, str):
        raise TaskFileError(f"{where}: 'label' must be a string, got {shorten(label)}")
    if (
        not isinstance(segment, list)
        or len(segment) != 2
        or not all(type(time) in (int, float) for time in segment)
    ):
        raise TaskFileError(
            f"{where}: 'segment' must be two times in seconds, got {shorten(segment)}"
        )
    start, end = (json_number(f"{where}, 'segment'", time) for time in segment)
    if end < start:
        raise TaskFileError(f"{where}: the segment ends at {end} s, before it starts")
    return label, (start, end)
