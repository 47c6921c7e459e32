"""Both stages read the record of the videos that a run may have seen."""

from typing import cast

from pipelines.snapshots import exposed_runs, snapshot
from protos import contract
from protos.v1.manifest_pb2 import Increment, Manifest, ShardEntry, ShardSummary, VideoFile
from trainer.data.snapshot import Snapshot
from trainer.runs import seen_clips

VIDEOS = (("one", "ab" * 32), ("dQw4w9WgXcQ", ""), ("two.mp4", "cd" * 32), ("three", "ef" * 32))


class Listed(Snapshot):
    """A snapshot that has only the list of videos."""

    def __init__(self, dataset, videos):
        self.folder, self._videos = "snapshots/x", videos
        self.manifest = Manifest(dataset=dataset)

    def videos(self):
        return iter(self._videos)


def test_remove_lists_the_videos_that_a_runs_record_has(tmp_path):
    summary = ShardSummary(videos=[VideoFile(video_id=v, sha256=sha256) for v, sha256 in VIDEOS])
    stem = contract.shard_name(0, 1)
    entry = snapshot.write_file(str(tmp_path), f"{stem}.json", snapshot.to_json(summary))
    manifest = Manifest(dataset="mine", shards=[ShardEntry(summary=entry)])
    run = tmp_path / "run"
    run.mkdir()
    (run / "data.json").write_text("{}")
    # One by its id, one of YouTube's in another data set, one by its file, and one not at all.
    trained = [
        Listed("mine", [("one", "12" * 32)]),
        Listed("theirs", [("dQw4w9WgXcQ", ""), ("three", ""), ("other name", "cd" * 32)]),
    ]
    seen_clips.keep(run, seen_clips.gather(cast("list[Snapshot]", trained)))
    (found,) = exposed_runs.seen_by(
        [str(run)], str(tmp_path), manifest, [video_id for video_id, _ in VIDEOS]
    )
    assert found == exposed_runs.SeenBy(str(run), ["dQw4w9WgXcQ", "one", "two.mp4"])


def test_videos_of_an_append_are_found_under_its_own_source(tmp_path):
    summary = ShardSummary(videos=[VideoFile(video_id="seven", sha256="ab" * 32)])
    stem = contract.shard_name(0, 1)
    entry = snapshot.write_file(str(tmp_path), f"{stem}.json", snapshot.to_json(summary))
    manifest = Manifest(dataset="theirs", shards=[ShardEntry(summary=entry)])
    run = tmp_path / "run"
    run.mkdir()
    (run / "data.json").write_text("{}")
    grown = Listed("mine", [("seven", "cd" * 32)])
    grown.manifest.increments.extend([Increment(), Increment(dataset="theirs")])
    seen = seen_clips.gather([cast("Snapshot", grown)])
    seen_clips.keep(run, seen)
    (found,) = exposed_runs.seen_by([str(run)], str(tmp_path), manifest, ["seven"])
    assert found.videos == ["seven"]
    for theirs in (Listed("theirs", [("seven", "ef" * 32)]), grown):
        assert seen_clips.overlap(seen, cast("Snapshot", theirs)).seen_videos == 1
    other = Listed("another", [("seven", "ef" * 32)])
    assert seen_clips.overlap(seen, cast("Snapshot", other)).seen_videos == 0
