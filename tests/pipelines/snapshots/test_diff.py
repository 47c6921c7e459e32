import os

import pytest

from pipelines.snapshots import diff, verify
from pipelines.snapshots.diff import Change
from pipelines.snapshots.snapshot import SnapshotError
from protos.v1.manifest_pb2 import Reject


@pytest.fixture
def compare(tmp_path, write_snapshot):
    """Return compare(old, new), whose arguments are those of write_snapshot."""

    def run(old, new):
        sides = []
        for name, arguments in (("old", old), ("new", new)):
            sides += [str(tmp_path / name), write_snapshot(tmp_path / name, **arguments)]
        return diff.compare(*sides)

    return run


def told(difference):
    return "\n".join(diff.lines(difference, maximum=2))


def test_a_snapshot_equals_itself(compare, make_clip):
    clips = [make_clip(f"video{i}") for i in range(5)]
    difference = compare({"clips": clips}, {"clips": clips[::-1]})
    assert not difference
    assert told(difference) == "unchanged: 5 records"


def test_added_and_removed_records_have_reasons(compare, make_clip):
    kept, arrived, lost, dropped, fresh = (make_clip(f"video{i}") for i in range(5))
    missing = Reject(
        reason="video_missing", video_id=arrived.video_id, source_row=arrived.source_row
    )
    removed = Reject(reason="video_empty", video_id=lost.video_id, source_row=lost.source_row)
    difference = compare(
        {"clips": [kept, lost, dropped], "rejects": (missing,)},
        {"clips": [kept, arrived, fresh], "rejects": (removed,), "data_version": "1.1.0"},
    )
    assert difference.same == 1 and difference.changed == []
    assert set(difference.added) == {
        Change(arrived.clip_id, "was rejected: video_missing"),
        Change(fresh.clip_id, "new annotation row"),
    }
    assert set(difference.removed) == {
        Change(lost.clip_id, "rejected: video_empty"),
        Change(dropped.clip_id, "no annotation row"),
    }
    assert difference.rejects == {"video_empty": (0, 1), "video_missing": (1, 0)}
    assert difference.manifest == {"data version": ("1.0.0", "1.1.0")}
    assert "rejects, video_empty: 0 → 1" in told(difference)
    assert "added: 1 (was rejected: video_missing)" in told(difference)


def test_options_explain_changed_records(compare, make_clip):
    difference = compare(
        {"clips": [make_clip("a", grey=10)], "shards": 2},
        {"clips": [make_clip("a", grey=20)], "shards": 5, "jpeg_quality": 80},
    )
    (change,) = difference.changed
    assert change.why == "another option jpeg_quality"
    assert difference.manifest["option jpeg_quality"] == ("90", "80")


def test_a_record_changes_under_the_same_options(compare, make_clip):
    moved = make_clip("a")
    moved.source_row = "rows.csv:77"
    difference = compare({"clips": [make_clip("a")]}, {"clips": [moved]})
    assert difference.changed == [Change(moved.clip_id, "another annotation row")]


def test_another_file_of_the_same_video(compare, make_clip):
    difference = compare(
        {"clips": [make_clip("a", grey=10)]},
        {"clips": [make_clip("a", grey=20)], "videos": "another upload"},
    )
    assert [change.why for change in difference.changed] == ["another video file"]


def test_a_truncated_shard_is_damage_not_a_change(compare, make_clip, tmp_path):
    clips = {"clips": [make_clip("a"), make_clip("b")], "shards": 1}
    compare(clips, clips)
    (shard,) = (tmp_path / "new").glob("*.tfrecord")
    os.truncate(shard, shard.stat().st_size - 10)
    manifests = [verify.read_manifest(str(tmp_path / side)) for side in ("old", "new")]
    with pytest.raises(SnapshotError, match=f"{shard.name} is damaged"):
        diff.compare(str(tmp_path / "old"), manifests[0], str(tmp_path / "new"), manifests[1])


def test_long_lists_are_truncated(compare, make_clip):
    clips = [make_clip(f"video{i}") for i in range(5)]
    difference = compare({"clips": clips[:1]}, {"clips": clips})
    assert told(difference).count("  added ") == 2
    assert "… and 2 more" in told(difference)
