import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.snapshots import snapshot
from protos import contract, tfrecord
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import Counts, FileEntry, Manifest


def write_shard(folder, *clip_ids):
    with snapshot.ShardWriter(str(folder), "shard-00000-of-00001") as writer:
        for clip_id in clip_ids:
            writer.append(Clip(clip_id=clip_id, caption="c" * len(clip_id)))
    return writer


def test_records_are_read_back_by_their_index(tmp_path):
    writer = write_shard(tmp_path, "a", "bb", "c")
    data = (tmp_path / writer.data.name).read_bytes()
    index = snapshot.read_index(str(tmp_path / writer.index.name))
    assert [entry.clip_id for entry in index.records] == ["a", "bb", "c"]
    for entry in index.records:
        framed = data[entry.offset : entry.offset + entry.length]
        assert Clip.FromString(tfrecord.unframe(framed)).clip_id == entry.clip_id
    assert snapshot.fault(str(tmp_path), writer.data) is None
    assert snapshot.fault(str(tmp_path), writer.index) is None
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("clip_ids", [("b", "a"), ("a", "a")])
def test_records_out_of_order_leave_no_shard(tmp_path, clip_ids):
    with pytest.raises(ValueError, match="not in order"):
        write_shard(tmp_path, *clip_ids)
    assert os.listdir(tmp_path) == []


def test_an_error_keeps_the_existing_file(tmp_path):
    write_shard(tmp_path, "a")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(KeyError),
        snapshot.ShardWriter(str(tmp_path), "shard-00000-of-00001") as writer,
    ):
        writer.append(Clip(clip_id="b"))
        raise KeyError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@given(st.dictionaries(st.text(), st.integers(0, 2**60)), st.text())
def test_json_is_stable_and_read_back(tmp_path_factory, rejects, name):
    manifest = Manifest(dataset=name, counts=Counts(rejects=rejects))
    backwards = Manifest(dataset=name, counts=Counts(rejects=dict(reversed(rejects.items()))))
    assert snapshot.to_json(manifest) == snapshot.to_json(backwards)
    folder = str(tmp_path_factory.mktemp("json"))
    entry = snapshot.write_file(folder, "m.json", snapshot.to_json(manifest))
    assert snapshot.read_json(os.path.join(folder, entry.name), Manifest) == manifest


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"bytes": "x"}', b"[" * 100_000])
def test_damaged_json_is_reported(tmp_path, data):
    (tmp_path / "entry.json").write_bytes(data)
    with pytest.raises(snapshot.SnapshotError, match="is damaged") as error:
        snapshot.read_json(str(tmp_path / "entry.json"), FileEntry)
    assert "\n" not in str(error.value)


def test_fields_of_a_newer_schema_are_accepted(tmp_path):
    (tmp_path / "entry.json").write_text('{"name": "a", "colour": "red"}')
    assert snapshot.read_json(str(tmp_path / "entry.json"), FileEntry) == FileEntry(name="a")


def test_faults_of_files(tmp_path):
    entry = snapshot.write_file(str(tmp_path), "a", b"12345")
    for data, told in ((b"1234", "4 bytes instead of 5"), (b"12346", "has sha256")):
        (tmp_path / "a").write_bytes(data)
        assert told in str(snapshot.fault(str(tmp_path), entry))
    (tmp_path / "a").unlink()
    assert snapshot.fault(str(tmp_path), entry) == "a: No such file or directory"


def test_only_unfinished_files_are_removed(tmp_path):
    (tmp_path / "shard-00000-of-00002.tfrecord").touch()
    (tmp_path / "shard-00001-of-00002.index.0123.unfinished").touch()
    two = snapshot.shard_files(contract.shard_name(shard, 2) for shard in range(2))
    snapshot.clear_unfinished(str(tmp_path), two)
    assert os.listdir(tmp_path) == ["shard-00000-of-00002.tfrecord"]
    with pytest.raises(snapshot.SnapshotError, match="shard-00000-of-00002"):
        snapshot.clear_unfinished(str(tmp_path), {"shard-00000-of-00003.index"})
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(snapshot.SnapshotError, match=r"thesis\.tex"):
        snapshot.clear_unfinished(str(tmp_path), two)
    assert (tmp_path / "thesis.tex").exists()
