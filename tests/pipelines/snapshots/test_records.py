import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.snapshots import records, snapshot
from pipelines.snapshots.records import Place
from protos.v1.manifest_pb2 import Manifest, Reject, ShardEntry


@pytest.fixture
def written(tmp_path, make_clip, write_snapshot):
    clips = [make_clip(f"video{i}", start) for i in range(9) for start in (0, 2_000_000)]
    rejects = (Reject(reason="video_missing", video_id="video9"),)
    plan_rejects = (Reject(reason="row_columns"),)
    folder = tmp_path / "snapshot"
    manifest = write_snapshot(folder, clips, rejects=rejects, plan_rejects=plan_rejects)
    return str(folder), manifest, clips


def test_every_record_is_found_by_id_and_by_place(written):
    folder, manifest, clips = written
    ids = [clip.clip_id for clip in clips]
    places = records.find(folder, manifest, ids)
    assert list(records.read(folder, manifest, places)) == clips
    assert records.find(folder, manifest, list(map(str, places))) == places
    assert places == list(dict.fromkeys(places))


@pytest.mark.parametrize("name", ["nothing", "3:0", "0:99", "-1:0", "video0_0_100000"])
def test_a_missing_record_is_an_error(written, name):
    folder, manifest, _ = written
    with pytest.raises(snapshot.SnapshotError, match=f"no record '{name}'"):
        records.find(folder, manifest, ["0:0", name])


def test_a_damaged_record_is_named(written, tmp_path):
    folder, manifest, _ = written
    path = tmp_path / "snapshot" / "shard-00000-of-00003.tfrecord"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(snapshot.SnapshotError, match=r"shard-00000.*is damaged.*verify"):
        list(records.read(folder, manifest, [Place(0, 0)]))


def test_an_index_of_another_shard_is_refused(written, tmp_path):
    folder, manifest, _ = written
    (tmp_path / "snapshot" / "shard-00000-of-00003.index").write_bytes(b"")
    with pytest.raises(snapshot.SnapshotError, match="its sha256 differs"):
        records.find(folder, manifest, ["some id"])


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(1, 100))
def test_places_are_evenly_spaced(sizes, count):
    manifest = Manifest(shards=[ShardEntry(records=size) for size in sizes])
    places = records.evenly_spaced(manifest, count)
    assert len(places) == min(count, sum(sizes))
    numbers = [sum(sizes[: place.shard]) + place.number for place in places]
    assert all(0 <= place.number < sizes[place.shard] for place in places)
    gaps = {after - before for before, after in itertools.pairwise(numbers)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


def test_rejects_of_plan_and_shards(written):
    folder, manifest, _ = written
    reasons = [reject.reason for reject in records.rejects(folder, manifest)]
    assert reasons == ["row_columns", "video_missing"]
