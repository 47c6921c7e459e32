"""A shard of an earlier version, of which a new build retries only the failed videos.

If decoding rejected one of a video's rows, the whole video is decoded again. Its clips thus never
come from two files. If the video's file is now missing, its records are kept. Removed videos stay
removed.
"""

import collections
import dataclasses
import functools
import os

from pipelines.decoding import video_file
from pipelines.snapshots import increments, records, snapshot, verify
from pipelines.snapshots.records import Place
from pipelines.snapshots.redaction import redaction_of
from pipelines.sources.clip_request import ClipRequest
from pipelines.sources.reject_reasons import REMOVED
from protos import contract
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import FileEntry, Reject, ShardSummary


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard of an earlier version of the snapshot."""

    folder: str
    number: int
    summary: ShardSummary
    files: tuple[FileEntry, ...]
    rejects: dict[str, Reject]  # by source row, without removed rows

    @functools.cached_property
    def clips(self) -> dict[str, list[Clip]]:
        """The shard's records by video id, read on first access.

        Raises:
          SnapshotError: a file is missing or damaged.
        """
        clips: dict[str, list[Clip]] = collections.defaultdict(list)
        places = [Place(self.number, number) for number in range(self.summary.records)]
        for clip in records.read(self.folder, verify.manifest_of(self.folder), places):
            clips[clip.video_id].append(clip)
        return clips

    @functools.cached_property
    def failed(self) -> set[str]:
        """The ids of the videos to retry: those with a row that decoding rejected."""
        return {r.video_id for r in self.rejects.values() if r.stage == "decode"}

    def is_final(self, rows: int, removed: frozenset[str]) -> bool:
        """Return whether the shard's files can be reused unchanged.

        Args:
          rows: number of rows that the annotations now have for the shard.
          removed: ids of videos that were taken down.
        """
        return (
            not self.failed
            and self.summary.rows == rows
            and not redaction_of(removed).touches(self.summary)
        )

    def keeps(self, video_id: str, found: video_file.Video | video_file.Failure) -> bool:
        """Return whether a video's records and rejects are kept from the earlier version.

        Args:
          video_id: the video.
          found: the video's file, or why there is no file now.
        """
        if video_id not in self.failed:
            return True
        return isinstance(found, video_file.Failure) and bool(self.clips.get(video_id))

    def keep(self, video_id: str, requests: list[ClipRequest], summary: ShardSummary) -> list[Clip]:
        """Return a video's records, and append its rejects and its file to `summary`."""
        summary.videos.extend(v for v in self.summary.videos if v.video_id == video_id)
        rejects = (self.rejects.get(request.source_row) for request in requests)
        summary.rejects.extend(reject for reject in rejects if reject is not None)
        return self.clips.get(video_id, [])


def read(folder: str, shard: int, increment: int = 0) -> Shard:
    """Read the summary of a shard of one increment of the snapshot in `folder`.

    The records are read lazily.

    Raises:
      SnapshotError: a file is missing or damaged.
    """
    part = increments.split(verify.manifest_of(folder))[increment]
    entry = part.manifest.shards[shard]
    stem = contract.shard_name(shard, len(part.manifest.shards), increment)
    summary = snapshot.read_json(os.path.join(folder, f"{stem}.json"), ShardSummary, entry.summary)
    rejects = {r.source_row: r for r in summary.rejects if r.reason != REMOVED}
    return Shard(
        folder, part.first + shard, summary, (entry.data, entry.index, entry.summary), rejects
    )
