"""Runs that may have seen some videos of a snapshot, by the runs' own records.

A run's folder has seen.bin, the marks of the videos that it may have seen (protos/seen_marks.py),
and in data.json the sha256 of that file, `seen.sha256`. The record includes the videos of the runs
that it started from, and is the same for all versions of a data set.
"""

import array
import hashlib
import os
import sys
from collections.abc import Iterable
from typing import NamedTuple

from pipelines.snapshots import records
from pipelines.snapshots.redaction import Redaction
from pipelines.storage import storage
from protos import contract
from protos.seen_marks import MARK_BYTES, mark_of_file, marks_to_find
from protos.strict_json import parse_object
from protos.v1.manifest_pb2 import Manifest


class SeenBy(NamedTuple):
    """The videos that a run may have seen."""

    run: str
    videos: list[str]  # sorted ids
    unknown: str = ""  # reason for which they are not known


def seen_by(
    runs: Iterable[str], folder: str, manifest: Manifest, video_ids: Iterable[str]
) -> list[SeenBy]:
    """Return for each run the videos of a snapshot, of those given, that it may have seen.

    Args:
      runs: folders of runs.
      folder: the snapshot's folder.
      manifest: its manifest.
      video_ids: ids of the videos, in any spelling.

    Raises:
      SnapshotError: a file of the snapshot is missing or damaged.
    """
    wanted = Redaction(video_ids)
    marks: dict[int, str] = {}
    for summary in records.summaries(folder, manifest):
        for video in summary.videos:
            if wanted.ids_of(video.video_id):
                marks[mark_of_file(video.sha256)] = video.video_id
                for dataset in contract.datasets(manifest):
                    ids = marks_to_find(dataset, video.video_id, video.sha256)
                    marks |= dict.fromkeys(ids, video.video_id)
    marks.pop(0, None)  # a file whose sha256 is unknown
    return [_seen_by(run, marks) for run in runs]


def _seen_by(run: str, marks: dict[int, str]) -> SeenBy:
    try:
        about = parse_object(storage.read(os.path.join(run, "data.json"))).get("seen")
        if not isinstance(about, dict):
            return SeenBy(run, [], "an earlier release trained it, which kept no record of them")
        packed = storage.read(os.path.join(run, "seen.bin"))
    except OSError as error:
        return SeenBy(run, [], f"{error.filename}: {error.strerror}")
    except ValueError as error:
        return SeenBy(run, [], f"{run}/data.json is damaged: {error}")
    if hashlib.sha256(packed).hexdigest() != about.get("sha256") or len(packed) % MARK_BYTES:
        return SeenBy(run, [], f"{run}/seen.bin is damaged: its sha256 is not that in data.json")
    seen = array.array("Q", packed)
    if sys.byteorder == "big":
        seen.byteswap()
    return SeenBy(run, sorted({marks[mark] for mark in marks.keys() & set(seen)}))
