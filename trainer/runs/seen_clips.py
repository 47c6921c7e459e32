"""Record of the clips that a run may have seen, checked before the run is evaluated on others.

RUN/seen.bin has two marks per video, of its id and of its file. protos/seen_marks.py defines them,
and when two videos are the same. RUN/data.json has in `seen` {"videos", "sha256" of seen.bin,
"unknown": the sources of the run's first parameters with an unknown training set, such as published
weights}. A run that starts from another has seen what that one saw.

A clip counts as seen if any clip of its video was trained on.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt64

from protos import contract
from protos.seen_marks import MARK_BYTES, TABLES, mark_of_file, mark_of_id, marks_to_find
from trainer.data.folder import read_file, write_file
from trainer.data.snapshot import Snapshot
from trainer.errors import UserError
from trainer.runs.checkpoint import Loaded
from trainer.runs.run_folder import RunError, read_data, write_data
from trainer.runs.run_path import RunPath

_MARKS = "seen.bin"
_EXAMPLES = 3


class SeenError(UserError, RuntimeError):
    """A run that was trained on some of the clips to evaluate it on."""


class Seen(NamedTuple):
    """Videos that a run may have seen."""

    marks: UInt64[np.ndarray, " n"]  # sorted, unique
    videos: int  # number of videos in its own snapshots
    unknown: tuple[str, ...] = ()  # sources of its first parameters whose training is unknown


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Overlap of a snapshot with the videos that a run may have seen."""

    snapshot: str
    known: bool  # True if the run has a record of the videos it saw
    unknown: tuple[str, ...]  # sources of its first parameters whose training is unknown
    videos: int  # number of videos in the snapshot
    seen_videos: int
    examples: tuple[str, ...]  # ids of some seen videos
    by_id_alone: int = 0  # number of seen videos whose files differ or are unknown

    def sentence(self) -> str:
        """Describe for a user how far figures of the snapshot can be trusted.

        >>> Overlap("test", True, (), 10, 0, ()).sentence()
        'the run was trained on none of the 10 videos of test'
        """
        if self.seen_videos:
            by_id = "videos with the ids of " if self.by_id_alone == self.seen_videos else ""
            text = (
                f"the run was trained on {by_id}{self.seen_videos:,} of the {self.videos:,} videos "
                f"of {self.snapshot}, such as {', '.join(self.examples)}"
            )
            if self.by_id_alone:
                text += f" ({self.by_id_alone:,} by id alone: the files differ or are unknown)"
        elif self.known:
            text = f"the run was trained on none of the {self.videos:,} videos of {self.snapshot}"
        else:
            return (
                "the run has no record of its training clips, so their overlap with "
                f"{self.snapshot} is unknown"
            )
        if self.unknown:
            text += f"; the training clips of {' and '.join(self.unknown)} are unknown"
        return text

    def as_json(self) -> dict[str, Any]:
        """Return the overlap as in files of figures."""
        return {
            "known": self.known,
            "unknown": list(self.unknown),
            "videos": self.videos,
            "seen_videos": self.seen_videos,
            "examples": list(self.examples),
            "by_id_alone": self.by_id_alone,
        }


# --- the record of a run ---


def gather(
    snapshots: Iterable[Snapshot], earlier: RunPath | None = None, weights: Sequence[Any] = ()
) -> Seen:
    """Return the videos that a run trained on some snapshots will have seen.

    Args:
      snapshots: the snapshots to train on.
      earlier: a run that it starts from.
      weights: published weights that it starts from, whose training set is unknown.

    Raises:
      SnapshotError: a shard's summary or index is damaged.
    """
    marks, videos = [np.zeros(0, np.uint64)], 0
    for snapshot in snapshots:
        listed = list(snapshot.videos())
        videos += len({video_id for video_id, _ in listed})
        of_ids = [
            mark_of_id(dataset, video_id, known=bool(sha256))
            for dataset in contract.datasets(snapshot.manifest)
            for video_id, sha256 in listed
        ]
        of_files = _marks_of_files(listed)
        marks += [np.array(of_ids, np.uint64), of_files[of_files > 0]]
    unknown = [f"{path}" for path in weights]
    if earlier is not None:
        try:
            before = of_run(earlier)
        except OSError:
            before = None
        if before is None:
            unknown.append(f"{earlier}")
        else:
            marks.append(before.marks)
            unknown.extend(before.unknown)
    return Seen(np.unique(np.concatenate(marks)), videos, tuple(dict.fromkeys(unknown)))


def keep(run: RunPath, seen: Seen) -> None:
    """Write the record into the run's folder, which must have a data.json."""
    packed = seen.marks.astype("<u8").tobytes()
    write_file(run / _MARKS, packed)
    about = {
        "videos": seen.videos,
        "sha256": hashlib.sha256(packed).hexdigest(),
        "unknown": list(seen.unknown),
    }
    write_data(run, read_data(run) | {"seen": about})


def of_run(run: RunPath) -> Seen | None:
    """Return the record of a run; None for a run of an earlier release, or a lone checkpoint.

    Raises:
      RunError: the record is damaged.
    """
    try:
        about = read_data(run).get("seen")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if about is None:
        return None
    if not _is_record(about):
        raise RunError(
            f"{run / 'data.json'} is damaged: its field seen is {about!r:.80}; restore the file, "
            "or train the run again"
        )
    try:
        packed = read_file(run / _MARKS)
    except FileNotFoundError:
        packed = b""
    if hashlib.sha256(packed).hexdigest() != about["sha256"]:
        raise RunError(
            f"{run / _MARKS} does not match data.json: it records the run's training clips; "
            "restore the file, or train the run again"
        )
    if len(packed) % MARK_BYTES:
        raise RunError(
            f"{run / _MARKS} is damaged: it has {len(packed):,} bytes, not a multiple of "
            f"{MARK_BYTES}; restore the file, or train the run again"
        )
    return Seen(np.frombuffer(packed, "<u8"), about["videos"], tuple(about["unknown"]))


def _is_record(about: Any) -> bool:
    """Return whether the `seen` of a data.json has the form that `keep` writes.

    >>> _is_record({"videos": 2, "sha256": "ab", "unknown": []}), _is_record({"videos": "2"})
    (True, False)
    """
    if not isinstance(about, dict):
        return False
    videos, sha256, unknown = (about.get(name) for name in ("videos", "sha256", "unknown"))
    return (
        type(videos) is int
        and videos >= 0
        and isinstance(sha256, str)
        and isinstance(unknown, list)
        and all(isinstance(source, str) for source in unknown)
    )


# --- the overlap with a snapshot ---


def overlap(seen: Seen | None, snapshot: Snapshot, task: dict[str, Any] | None = None) -> Overlap:
    """Return how much of a snapshot was seen.

    Args:
      seen: the record of a run; None if it has none.
      snapshot: the snapshot to evaluate the run on.
      task: task.json of a fine-tuned run, which lists the videos it was fine-tuned on.

    Raises:
      SnapshotError: a shard's summary or index is damaged.
    """
    listed, datasets = list(snapshot.videos()), contract.datasets(snapshot.manifest)
    ids = [video_id for video_id, _ in listed]
    found, same_file = np.zeros((2, len(ids)), bool)
    if seen is not None:
        same_file = np.isin(_marks_of_files(listed), seen.marks)
        found = same_file.copy()
        for dataset in datasets:
            found |= np.isin(_marks_of_ids(dataset, listed), seen.marks).any(axis=1)
    tuned = (task or {}).get("trained_on", {"datasets": (), "videos": ()})
    # For tables, `seen` is more precise, because it includes the files.
    shared = {*datasets} & {*tuned["datasets"]}
    if shared and (seen is None or shared != {TABLES}):
        videos = set(tuned["videos"])
        found |= np.fromiter((one in videos for one in ids), bool, len(ids))
    # A snapshot may have parts of a video in several shards.
    those, files = (sorted({ids[k] for k in np.flatnonzero(part)}) for part in (found, same_file))
    return Overlap(
        snapshot=snapshot.folder,
        known=seen is not None,
        unknown=() if seen is None else seen.unknown,
        videos=len(set(ids)),
        seen_videos=len(those),
        examples=tuple(those[:_EXAMPLES]),
        by_id_alone=len(those) - len(files),
    )


def of_loaded(run: Loaded, snapshot: Snapshot) -> Overlap:
    """Return how much of a snapshot a loaded run may have seen.

    Raises:
      RunError: the run's record is damaged.
      SnapshotError: as `overlap`.
    """
    return overlap(of_run(run.folder) if run.folder else None, snapshot, run.task)


def refuse(found: Overlap, *, allowed: bool) -> None:
    """Refuse to evaluate a run on clips that it was trained on, unless it is allowed.

    Raises:
      SeenError: the run was trained on some of them, and `allowed` is False.
    """
    if found.seen_videos and not allowed:
        raise SeenError(
            f"{found.sentence()}: evaluate the run on its own test split, or train one for this "
            "split; --allow-seen evaluates it anyway, with a warning"
        )


def _marks_of_files(listed: Sequence[tuple[str, str]]) -> UInt64[np.ndarray, " n"]:
    """Return the marks of the files of a snapshot's videos; 0 if unknown."""
    return np.array([mark_of_file(sha256) for _, sha256 in listed], np.uint64)


def _marks_of_ids(
    dataset: str, listed: Sequence[tuple[str, str]]
) -> UInt64[np.ndarray, "n known=2"]:
    """Return the id marks of a snapshot's videos to look up in the record of a run."""
    marks = [marks_to_find(dataset, video_id, sha256) for video_id, sha256 in listed]
    return np.array(marks, np.uint64).reshape(-1, 2)
