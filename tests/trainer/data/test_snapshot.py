import concurrent.futures
import hashlib
import json
import pathlib
import time

import pytest

from protos.v1 import manifest_pb2
from trainer.data.annotations import read_texts
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot, SnapshotError


def test_records_are_numbered_through_and_read_in_the_order_asked(write_snapshot):
    written = write_snapshot(clips=11, shards=3)
    snapshot = Snapshot.open(written.folder)
    assert len(snapshot) == 11
    wanted = [10, 0, 5, 4, 5]
    assert snapshot.read(wanted) == [written.clips[i].SerializeToString() for i in wanted]
    for record, clip in enumerate(written.clips):
        where = snapshot.locate(record)
        assert where.clip_id == clip.clip_id
        assert (
            pathlib.Path(where.shard)
            .read_bytes()[where.offset + 12 :]
            .startswith(clip.SerializeToString())
        )
    for beyond in (-1, 11):
        with pytest.raises(
            IndexError, match=f"record {beyond} of .* does not exist: it has 11 records"
        ):
            snapshot.read([beyond])


def test_an_empty_shard_is_passed_over(write_snapshot):
    written = write_snapshot(clips=2, shards=5)
    snapshot = Snapshot.open(written.folder)
    assert [snapshot.locate(i).clip_id for i in (0, 1)] == [c.clip_id for c in written.clips]


def test_indices_are_read_on_demand(write_snapshot):
    written = write_snapshot(clips=9, shards=3)
    snapshot = Snapshot.open(written.folder)
    snapshot.read([0])
    (written.folder / "shard-00000-of-00003.index").unlink()
    (written.folder / "shard-00002-of-00003.index").unlink()
    snapshot.read([1, 5])
    with pytest.raises(SnapshotError, match=r"shard-00002-of-00003\.index cannot be read"):
        snapshot.read([8])


def test_an_index_is_read_once_though_several_threads_want_it(write_snapshot, monkeypatch):
    snapshot = Snapshot.open(write_snapshot(clips=9, shards=3).folder)
    read, asked = Snapshot._read_indices, []

    def slow(self, shards):
        asked.extend(shards)
        time.sleep(0.1)  # so that the other threads come meanwhile
        return read(self, shards)

    monkeypatch.setattr(Snapshot, "_read_indices", slow)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        same = list(threads.map(snapshot.read, [[0, 5], [5, 0], [0, 1, 5], [8, 0]]))
    assert same[1] == same[0][::-1] and same[2][::2] == same[0]
    assert sorted(asked) == [0, 1, 2]


def test_a_snapshot_of_many_shards_keeps_only_read_indexes(write_snapshot):
    """One shard under 2,000 names; benchmarks/input.py has 20,000 with 6,800 clips each."""
    written = write_snapshot(clips=11, shards=1)
    values = json.loads(written.manifest.read_text())
    (shard,) = values["shards"]
    shards = []
    for number in range(2_000):
        names = {"data": f"{number}.tfrecord", "index": f"{number}.index"}
        for kind, name in names.items():
            (written.folder / name).hardlink_to(written.folder / shard[kind]["name"])
        shards.append(shard | {kind: shard[kind] | {"name": name} for kind, name in names.items()})
    config = values["config"] | {"numShards": 2_000}
    written.edit_manifest(
        shards=shards, config=config, counts={"rows": "22000", "records": "22000"}
    )
    snapshot = Snapshot.open(written.folder)
    assert len(snapshot) == 22_000
    assert snapshot.read([21_999, 0, 5 * 11 + 3]) == [
        written.clips[place].SerializeToString() for place in (10, 0, 3)
    ]
    assert snapshot._ends.keys() == {0, 5, 1_999}
    assert sum(ends.nbytes for ends in snapshot._ends.values()) == 3 * 11 * 8


def test_an_index_must_account_for_its_whole_shard(write_snapshot):
    written = write_snapshot(clips=9, shards=3)
    path = written.folder / "shard-00000-of-00003.index"
    entries = manifest_pb2.ShardIndex.FromString(path.read_bytes())
    entries.records[1].length += 1
    path.write_bytes(entries.SerializeToString())
    values = json.loads(written.manifest.read_text())
    data = path.read_bytes()
    values["shards"][0]["index"] |= {
        "bytes": str(len(data)),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    written.edit_manifest(shards=values["shards"])
    with pytest.raises(SnapshotError, match=r"shard-00000.*\.index covers \d+ of the"):
        Snapshot.open(written.folder).read([1])


def test_ids_come_from_the_indices_alone(write_snapshot):
    written = write_snapshot(clips=9, shards=3)
    snapshot = Snapshot.open(written.folder)
    for path in written.folder.glob("*.tfrecord"):
        path.unlink()
    wanted = [8, 0, 1, 8]
    assert snapshot.clip_ids(wanted) == [written.clips[record].clip_id for record in wanted]


def test_a_flipped_bit_names_shard_offset_and_clip(write_snapshot):
    written = write_snapshot(clips=9, shards=3)
    snapshot = Snapshot.open(written.folder)
    where = snapshot.locate(4)
    for place in (0, 9, 13, where.length // 2, where.length - 1):
        data = bytearray(pathlib.Path(where.shard).read_bytes())
        data[where.offset + place] ^= 16
        pathlib.Path(where.shard).write_bytes(data)
        with pytest.raises(SnapshotError) as raised:
            snapshot.read([3, 4, 5])
        message = str(raised.value)
        assert "shard-00001-of-00003.tfrecord" in message and "\n" not in message
        assert f"offset {where.offset} " in message and repr(where.clip_id) in message
        data[where.offset + place] ^= 16
        pathlib.Path(where.shard).write_bytes(data)
    assert len(snapshot.read([3, 4, 5])) == 3


def test_a_shard_that_goes_away_is_named(write_snapshot):
    written = write_snapshot()
    snapshot = Snapshot.open(written.folder)
    (written.folder / "shard-00000-of-00003.tfrecord").unlink()
    with pytest.raises(SnapshotError, match=r"shard-00000-of-00003\.tfrecord cannot be read: No"):
        snapshot.read([0])
    with pytest.raises(SnapshotError, match=r"shard-00000-of-00003\.tfrecord is missing"):
        Snapshot.open(written.folder)


def test_absent_half_written_and_cut_snapshots(write_snapshot, tmp_path):
    with pytest.raises(SnapshotError, match=r"snapshot folder .*nowhere does not exist"):
        Snapshot.open(tmp_path / "nowhere")
    written = write_snapshot()
    with open(written.folder / "shard-00001-of-00003.tfrecord", "ab") as shard:
        shard.write(b"more")
    with pytest.raises(SnapshotError, match=r"shard-00001.* bytes, but the manifest lists"):
        Snapshot.open(written.folder)
    written.manifest.unlink()
    with pytest.raises(SnapshotError, match=r"no manifest\.json.* run svilm-pipelines build again"):
        Snapshot.open(written.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schemaVersion": "1.0", "counts": 3}', "\udcff"])
def test_a_damaged_manifest(write_snapshot, text):
    written = write_snapshot()
    written.manifest.write_text(text, errors="surrogateescape")
    with pytest.raises(SnapshotError, match=r"manifest\.json") as raised:
        Snapshot.open(written.folder)
    assert "\n" not in str(raised.value)


def test_a_newer_major_version_is_refused_before_its_fields_are_read(write_snapshot):
    written = write_snapshot()
    written.edit_manifest(schemaVersion="2.3", shards={"another": "shape"})
    with pytest.raises(SnapshotError, match=r"schema version 2\.3, but this release reads 1\.x"):
        Snapshot.open(written.folder)


def test_a_newer_minor_version_with_unknown_fields_passes(write_snapshot):
    written = write_snapshot()
    written.edit_manifest(schemaVersion="1.9", colourSpace={"of": ["the", "frames"]})
    assert len(Snapshot.open(written.folder).read([0])) == 1


def test_another_frame_encoding_is_refused(write_snapshot):
    written = write_snapshot()
    config = json.loads(written.manifest.read_text())["config"]
    written.edit_manifest(config=config | {"frameEncoding": "FRAME_ENCODING_AV1"})
    with pytest.raises(SnapshotError, match="frame encoding 0 is none of"):
        Snapshot.open(written.folder)


def test_an_index_that_is_not_the_manifests(write_snapshot):
    written = write_snapshot()
    path = written.folder / "shard-00000-of-00003.index"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match=r"shard-00000-of-00003\.index is damaged: its sha256"):
        Snapshot.open(written.folder).read([0])


def test_an_index_of_another_length(write_snapshot):
    written = write_snapshot()
    other = (written.folder / "shard-00001-of-00003.index").read_bytes()[:-1]
    values = json.loads(written.manifest.read_text())
    for data, message in ((b"", "lists 0 records"), (other, "is not a ShardIndex")):
        (written.folder / "shard-00000-of-00003.index").write_bytes(data)
        values["shards"][0]["index"] |= {
            "bytes": str(len(data)),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        written.edit_manifest(shards=values["shards"])
        with pytest.raises(SnapshotError, match=message):
            Snapshot.open(written.folder).read([0])


@pytest.mark.parametrize("name", ["../snapshot/shard-00000-of-00003.tfrecord", "/etc/hosts", ".."])
def test_a_manifest_cannot_point_outside(write_snapshot, name):
    written = write_snapshot()
    values = json.loads(written.manifest.read_text())
    values["shards"][0]["data"]["name"] = name
    written.edit_manifest(shards=values["shards"])
    with pytest.raises(SnapshotError, match=r"not a plain file name|is missing"):
        Snapshot.open(written.folder)


def test_texts_for_a_vocabulary(write_snapshot):
    written = write_snapshot(clips=11)
    snapshot = Snapshot.open(written.folder)
    captions = [clip.caption for clip in written.clips]
    prompts = [p for clip in written.clips for chunk in clip.noun_chunks for p in chunk.prompts]
    assert sorted(read_texts(Mixture([snapshot]), at_most=1000)) == sorted(captions + prompts)
    some = [text for text in read_texts(Mixture([snapshot]), at_most=2) if text.startswith("Look")]
    assert some == [captions[0], captions[5]]
