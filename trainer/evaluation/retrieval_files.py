"""Retrieval's files: MSR-VTT's lists of test captions, and the similarities to score.

No benchmark defines a format for similarities. Two are read:

FILE.npy  the format of peers, a NumPy array [captions, videos] in the order of the ground truth:
          captions as its rows or sentences, videos by first occurrence in its rows or its `videos`,
          without videos that have no caption
FILE.csv  the same with names, in any order: a header `video_id,sentence,VIDEO,VIDEO,…`, then for
          each caption its own video, its text, and its similarity to each of the videos

Ground truth is the list of the 1k-A split (CSV, columns `video_id` and `sentence`), or
MSRVTT_data.json. From the latter the full split's test videos are read, with all their captions.
"""

import collections
import csv
import hashlib
import pathlib
import tokenize
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from protos.strict_json import first_line
from trainer.evaluation import retrieval
from trainer.evaluation.prediction_files import (
    Path,
    Row,
    TaskFileError,
    list_names,
    number,
    read_json,
    read_table,
    shorten,
    text_of,
)

# The sha256 of the 1k-A split's sorted video ids, one per line.
_1KA_SHA256 = "49a09fb68f7ec52b3b9bbb7e856ffbd3f00233976ed435fded658309c3cd491a"
# The ids of the full split's test videos.
_FULL = frozenset(f"video{number}" for number in range(7010, 10_000))


class Retrieval(retrieval.BothWays):
    """The metrics of a test set, with its name, since they depend on the test set."""

    split: str  # "1k-A", "full", or the size of another test set
    captions: int
    videos: int


class Caption(NamedTuple):
    """A query and its video; the text is stripped of white space, as in the records."""

    video_id: str
    text: str


def name_of(captions: Sequence[Caption]) -> str:
    """Return the name of MSR-VTT's test set, 1k-A or full; for another test set its size.

    >>> name_of([Caption("video1", "a cat"), Caption("video1", "a cat sits")])
    '2 captions of 1 video'
    """
    videos = {caption.video_id for caption in captions}
    if videos == _FULL:
        return "full"
    ids = "\n".join(sorted(videos)).encode()
    if len(captions) == 1000 and hashlib.sha256(ids).hexdigest() == _1KA_SHA256:
        return "1k-A"
    plural = "" if len(videos) == 1 else "s"
    return f"{len(captions):,} captions of {len(videos):,} video{plural}"


def figures(
    similarity: Float[np.ndarray, "q n"], captions: Sequence[Caption], videos: Sequence[str]
) -> Retrieval:
    """Return the metrics of a test set.

    Args:
      similarity: similarity of each caption to each video.
      captions: captions of the rows.
      videos: video ids of the columns.
    """
    column = {video: place for place, video in enumerate(videos)}
    clip_of = np.array([column[caption.video_id] for caption in captions])
    return {
        "split": name_of(captions),
        "captions": len(captions),
        "videos": len(videos),
        **retrieval.both_ways(similarity, clip_of),
    }


def score(predictions: Path, truth: Path) -> Retrieval:
    """Score a file of similarities.

    Raises:
      TaskFileError: a file has another format, or the files differ in captions or videos.
    """
    captions, videos, similarity = _read_similarities(predictions, *read_truth(truth))
    return figures(similarity, captions, videos)


def read_truth(path: Path) -> tuple[list[Caption], list[str]]:
    """Read the captions of a test set and their videos, in the file's order.

    Raises:
      TaskFileError: the file has none of the module's formats, or no caption of a test video.
    """
    if pathlib.Path(path).suffix == ".json":
        captions, videos = _of_msrvtt_data(path)
    else:
        header, rows = read_table(path)
        missing = [name for name in ("video_id", "sentence") if name not in header.values]
        if missing:
            raise TaskFileError(
                f"{header.where}: the header lacks {list_names(missing)}: give "
                "MSRVTT_JSFUSION_test.csv or a file like it, or MSRVTT_data.json"
            )
        video, text = header.values.index("video_id"), header.values.index("sentence")
        captions = [Caption(fields[video], fields[text].strip()) for _, fields in rows]
        videos = [caption.video_id for caption in captions]
    if not captions:
        raise TaskFileError(f"{path} has no caption of a test video")
    described = {caption.video_id for caption in captions}
    return captions, [video for video in dict.fromkeys(videos) if video in described]


def _of_msrvtt_data(path: Path) -> tuple[list[Caption], list[str]]:
    data = read_json(path)
    if not isinstance(data, dict) or not {"videos", "sentences"} <= data.keys():
        raise TaskFileError(f"{path}: must be an object with 'videos' and 'sentences'")
    videos, sentences = (_rows(path, name, data[name]) for name in ("videos", "sentences"))
    splits: dict[str, object] = {}
    for video in videos:
        split = video.values.get("split")
        if splits.setdefault(text_of(video, "video_id"), split) != split:
            raise TaskFileError(f"{video.where}: has another 'split' than an entry before it")
    if any(splits.values()):
        for video in videos:
            if not video.values.get("split"):
                raise TaskFileError(
                    f"{video.where}: lacks 'split', which other videos of the file have: add it, "
                    "or remove the video"
                )
        tests = [video for video, split in splits.items() if split == "test"]
    else:  # the file as first published: the full split is by number
        tests = [video for video in splits if video in _FULL]
    known = set(tests)
    captions = [
        Caption(text_of(one, "video_id"), text_of(one, "caption").strip()) for one in sentences
    ]
    return [caption for caption in captions if caption.video_id in known], tests


def _rows(path: Path, name: str, values: object) -> list[Row]:
    if not isinstance(values, list):
        raise TaskFileError(f"{path}: {name!r} must be a list, got {shorten(values)}")
    for place, value in enumerate(values):
        if not isinstance(value, dict):
            raise TaskFileError(
                f"{path}, {name!r}, entry {place}: must be an object, got {shorten(value)}"
            )
    return [Row(f"{path}, {name!r}, entry {place}", value) for place, value in enumerate(values)]


def _read_similarities(
    path: Path, truth: Sequence[Caption], videos: list[str]
) -> tuple[Sequence[Caption], list[str], Float[np.ndarray, "q n"]]:
    if pathlib.Path(path).suffix == ".npy":
        return truth, videos, _read_npy(path, (len(truth), len(videos)))
    return _read_csv(path, truth, videos)


def _read_npy(path: Path, shape: tuple[int, int]) -> Float[np.ndarray, "q n"]:
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
        raise TaskFileError(f"{path} is not a regular file: write the array to a file on a disk")
    try:
        # Memory-mapping avoids allocating a size that the header claims and the file lacks.
        similarity = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise TaskFileError(f"{path} cannot be read: {error.strerror or error}") from error
    # NumPy parses the header as a Python literal, which can raise all of these.
    except (
        *(ValueError, EOFError, SyntaxError, TypeError, KeyError, tokenize.TokenError),
        *(OverflowError, RecursionError, MemoryError),
    ) as error:
        raise TaskFileError(f"{path} is not a NumPy array ({first_line(error)})") from None
    if not isinstance(similarity, np.memmap) or similarity.dtype.kind not in "fiu":
        raise TaskFileError(f"{path}: must be one array of numbers")
    if similarity.shape != shape:
        raise TaskFileError(
            f"{path}: has shape {similarity.shape}, but the ground truth has {shape[0]} captions "
            f"(rows) and {shape[1]} videos (columns)"
        )
    rows, columns = np.nonzero(~np.isfinite(similarity))
    if rows.size:
        value = similarity[rows[0], columns[0]]
        raise TaskFileError(
            f"{path}, row {rows[0]}, column {columns[0]}: {value} must be a finite number"
        )
    if pathlib.Path(path).stat().st_size > similarity.offset + similarity.nbytes:
        raise TaskFileError(f"{path}: has bytes after its array: write it again with numpy.save")
    if similarity.dtype.kind in "iu" and np.any((similarity > 2**53) | (similarity < -(2**53))):
        raise TaskFileError(f"{path}: has integers beyond 2^53, which float64 rounds: use floats")
    return np.array(similarity, np.float64 if similarity.dtype.kind in "iu" else None)


def _read_csv(
    path: Path, truth: Sequence[Caption], videos: list[str]
) -> tuple[list[Caption], list[str], Float[np.ndarray, "q n"]]:
    header, rows = read_table(path)
    first, columns = header.values[:2], header.values[2:]
    if first != ["video_id", "sentence"]:
        raise TaskFileError(
            f"{header.where}: the header must begin with video_id,sentence, got "
            f"{shorten(','.join(first))}"
        )
    if twice := [name for name, count in collections.Counter(columns).items() if count > 1]:
        raise TaskFileError(f"{header.where}: duplicate columns {list_names(twice)}")
    if lost := [video for video in videos if video not in set(columns)]:
        raise TaskFileError(f"{header.where}: no column for {list_names(lost)}")
    if strange := [video for video in columns if video not in set(videos)]:
        raise TaskFileError(
            f"{header.where}: {list_names(strange)} is not a video of the ground truth"
        )
    left = collections.Counter(truth)
    captions, similarity = [], np.empty((len(truth), len(columns)))
    for where, (video_id, text, *values) in rows:
        caption = Caption(video_id, text.strip())
        if not left[caption]:
            times = "as often" if caption in left else "at all"
            raise TaskFileError(
                f"{where}: the ground truth does not have {shorten(text)} of {video_id} {times}"
            )
        left[caption] -= 1
        similarity[len(captions)] = [number(where, value) for value in values]
        captions.append(caption)
    if lost := [caption.text for caption in left.elements()]:
        raise TaskFileError(f"{path}: no row for {list_names(lost)}: give every test caption")
    return captions, columns, similarity


def write(
    path: Path,
    similarity: Float[np.ndarray, "q n"],
    captions: Iterable[Caption],
    videos: Sequence[str],
) -> None:
    """Write similarities with their names, without loss of precision.

    Args:
      path: path of the CSV file.
      similarity: similarity of each caption to each video.
      captions: captions of the rows.
      videos: video ids of the columns.
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["video_id", "sentence", *videos])
        for caption, row in zip(captions, similarity, strict=True):
            lines.writerow([*caption, *map(str, row)])  # str gives the digits that restore a value.


def table(found: Retrieval) -> str:
    """Format the metrics as a table for the terminal."""
    title = f"retrieval, {found['split']}"
    lines = [f"{title:<35}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'MedR':>7}"]
    for name, direction in (("text to video", found["t2v"]), ("video to text", found["v2t"])):
        for ties, recalls in (("", direction), (", optimistic", direction["optimistic"])):
            shown = "".join(f"{recalls[key]:7.1f}" for key in ("R@1", "R@5", "R@10", "MedR"))
            lines.append(f"  {name + ties:<33}{shown}")
    return "\n".join(lines)
