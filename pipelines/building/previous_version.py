"""A shard of an earlier version, whose failed rows alone are tried again.

A video is decoded again as a whole if one of its rows was rejected, so that its clips never come
from two files. If its file is no longer there, its records stay. What was removed stays removed.
"""

import collections
import dataclasses
import functools
import os

from pipelines.decoding import video_file
from pipelines.snapshots import records, snapshot, verify
from pipelines.snapshots.records import Place
from pipelines.snapshots.takedown import taken_down
from pipelines.sources.clip_request import REMOVED, ClipRequest
from protos import contract
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import FileEntry, Reject, ShardSummary


@dataclasses.dataclass(frozen=True)
class Shard:
    """What an earlier version has of a shard."""

    folder: str
    number: int
    summary: ShardSummary
    files: tuple[FileEntry, ...]
    rejects: dict[str, Reject]  # by source row

    @functools.cached_property
    def clips(self) -> dict[str, list[Clip]]:
        """Its records by video id.

        Raises:
          SnapshotError: a file is not there or is damaged.
        """
        clips: dict[str, list[Clip]] = collections.defaultdict(list)
        places = [Place(self.number, number) for number in range(self.summary.records)]
        for clip in records.read(self.folder, verify.manifest_of(self.folder), places):
            clips[clip.video_id].append(clip)
        return clips

    @functools.cached_property
    def failed(self) -> set[str]:
        """The videos to try again: those of rows that decoding rejected."""
        return {r.video_id for r in self.rejects.values() if r.stage == "decode"}

    def is_final(self, rows: int, removed: frozenset[str]) -> bool:
        """Whether the shard's files can be taken over as they are.

        Args:
          rows: that the annotations now have for it.
          removed: ids of videos that were taken down.
        """
        return (
            not self.failed
            and self.summary.rows == rows
            and not taken_down(removed).touches(self.summary)
        )

    def keeps(self, video_id: str, found: video_file.Video | video_file.Failure) -> bool:
        """Whether a video's rows stay as they were."""
        if video_id not in self.failed:
            return True
        return isinstance(found, video_file.Failure) and bool(self.clips.get(video_id))

    def keep(self, video_id: str, requests: list[ClipRequest], summary: ShardSummary) -> list[Clip]:
        """A video's records; its rejects and its file go into the summary."""
        summary.videos.extend(v for v in self.summary.videos if v.video_id == video_id)
        rejects = (self.rejects.get(request.source_row) for request in requests)
        summary.rejects.extend(reject for reject in rejects if reject is not None)
        return self.clips.get(video_id, [])


def read(folder: str, shard: int) -> Shard:
    """Reads a shard of the snapshot in `folder`; its records only once they are asked for.

    Raises:
      SnapshotError: a file is not there or is damaged.
    """
    manifest = verify.manifest_of(folder)
    entry = manifest.shards[shard]
    stem = contract.shard_name(shard, len(manifest.shards))
    summary = snapshot.read_json(os.path.join(folder, f"{stem}.json"), ShardSummary)
    rejects = {r.source_row: r for r in summary.rejects if r.reason != REMOVED}
    return Shard(folder, shard, summary, (entry.data, entry.index, entry.summary), rejects)
