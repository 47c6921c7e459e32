"""A shard of an earlier version, whose failed rows alone are tried again.

A video is decoded again as a whole if one of its rows was rejected, so that its clips never come
from two files. If its file is no longer there, its records stay. What was removed stays removed.
"""

import collections
import dataclasses
import os

from pipelines import records, snapshot, verify, video_file
from pipelines.clip_request import REMOVED, ClipRequest
from pipelines.records import Place
from protos import contract
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import FileEntry, Reject, ShardSummary


@dataclasses.dataclass(frozen=True)
class Shard:
    """What an earlier version has of a shard."""

    summary: ShardSummary
    files: tuple[FileEntry, ...]
    clips: dict[str, list[Clip]]  # by video id, if a row failed
    rejects: dict[str, Reject]  # by source row

    @property
    def failed(self) -> set[str]:
        """The videos to try again: those of rows that decoding rejected."""
        return {r.video_id for r in self.rejects.values() if r.stage == "decode"}

    def keeps(self, video_id: str, found: video_file.Video | video_file.Failure) -> bool:
        """Whether a video's rows stay as they were."""
        if any(r.video_id == video_id and r.reason == REMOVED for r in self.rejects.values()):
            return True
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
    """Reads a shard of the snapshot in `folder`; its records only if a row failed.

    Raises:
      SnapshotError: a file is not there or is damaged.
    """
    manifest = verify.manifest_of(folder)
    entry = manifest.shards[shard]
    stem = contract.shard_name(shard, len(manifest.shards))
    summary = snapshot.read_json(os.path.join(folder, f"{stem}.json"), ShardSummary)
    rejects = {reject.source_row: reject for reject in summary.rejects}
    clips: dict[str, list[Clip]] = collections.defaultdict(list)
    old = Shard(summary, (entry.data, entry.index, entry.summary), clips, rejects)
    if old.failed:
        places = [Place(shard, number) for number in range(entry.records)]
        for clip in records.read(folder, manifest, places):
            clips[clip.video_id].append(clip)
    return old
