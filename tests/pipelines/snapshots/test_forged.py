"""Forged and damaged snapshots: every reader refuses them in one line."""

import copy
import hashlib

import pytest

from pipelines.snapshots import plan_summary, records, snapshot, verify
from pipelines.snapshots.card import strips
from protos import contract, tfrecord
from protos.v1.clip_pb2 import FRAME_ENCODING_RAW, Clip
from protos.v1.manifest_pb2 import FileEntry, Manifest, RecordEntry, ShardIndex


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'{"bytes": "1", "bytes": "2"}',
        b'{"bytes": 1e999}',
        b'{"bytes": NaN}',
        b'{"bytes": ' + b"9" * 5000 + b"}",
        b'{"\\ud83d": 1}',
        b'{"name": "\\ud83d"}',
        b'{"name": {"a": 1}}',
        b'{"name": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"name": "\xff"}',
    ],
    ids=lambda data: data[:24],
)
def test_invalid_json_is_reported_in_one_line(data, tmp_path):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(snapshot.SnapshotError) as error:
        snapshot.read_json(str(tmp_path / "a.json"), FileEntry)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        # A JSON parser in C once crashed on such a number.
        b'{"rows": ' + b"9" * 5000 + b"}",
        b'{"rows": 1, "rejects": [{"stage": ' + b"1" * 70_000 + b"}]}",
        b'{"rows": 1e999}',
        b'{"rows": "1_0"}',
        b'{"rows": -1}',
        b'{"rows": 1, "rows": 2}',
        b'{"rows": 1, "rejects": [7]}',
        b'{"rows": 1, "rejects": [{"row": ' + b"[" * 3000 + b"]" * 3000 + b"}]}",
    ],
    ids=lambda data: data[:40],
)
def test_an_invalid_plan_is_reported_in_one_line(data, tmp_path):
    (tmp_path / contract.PLAN_NAME).write_bytes(data)
    with pytest.raises(snapshot.SnapshotError) as error:
        plan_summary.rows(str(tmp_path))
        list(plan_summary.rejects(str(tmp_path)))
    assert "\n" not in str(error.value)


@pytest.fixture
def written(tmp_path, write_snapshot, make_clip):
    """Return a snapshot of one shard with three records, and its manifest."""
    folder = tmp_path / "snapshot"
    manifest = write_snapshot(folder, [make_clip(name) for name in "abc"], shards=1)
    return folder, manifest


def forge(written, index=None, shard=None):
    """Write another index or shard, with matching checksums in the manifest."""
    folder, manifest = written
    forged = copy.deepcopy(manifest)
    for entry, data in ((forged.shards[0].index, index), (forged.shards[0].data, shard)):
        if data is not None:
            (folder / entry.name).write_bytes(data)
            entry.bytes, entry.sha256 = len(data), hashlib.sha256(data).hexdigest()
    return forged


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (0, {"offset": -(2**63)}),
        (1, {"offset": 2**62}),
        (1, {"length": -1}),
        (2, {"length": 2**62}),
        (2, {"clip_id": "0"}),
    ],
)
def test_an_index_with_wrong_offsets_is_refused(written, number, change):
    folder, manifest = written
    index = snapshot.read_index(str(folder / manifest.shards[0].index.name))
    index.records[number].MergeFrom(RecordEntry(**change))
    forged = forge(written, index=index.SerializeToString())
    for read in (
        lambda: list(records.read(str(folder), forged, records.evenly_spaced(forged, 3))),
        lambda: records.find(str(folder), forged, ["b_0_1000000"]),
    ):
        with pytest.raises(snapshot.SnapshotError, match=r"does not follow|index ends at"):
            read()
    assert verify.faults(str(folder), forged)


def test_find_notices_a_flipped_byte_of_an_index(written):
    folder, manifest = written
    path = folder / manifest.shards[0].index.name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # a byte of the last clip's id
    path.write_bytes(data)
    with pytest.raises(snapshot.SnapshotError, match="its sha256 differs"):
        records.find(str(folder), manifest, ["a_0_1000000"])


def test_a_record_that_violates_the_contract_is_refused(written):
    folder, manifest = written
    (clip, *_) = records.read(str(folder), manifest, [records.Place(0, 0)])
    for change in (
        Clip(height=9),
        Clip(frame_encoding=FRAME_ENCODING_RAW),
        Clip(frames=[b"\xff\xd8"]),
        Clip(clip_id="other"),
        Clip(start_us=5_000_000),
    ):
        other = Clip()
        other.CopyFrom(clip)
        other.MergeFrom(change)
        data = tfrecord.frame(other.SerializeToString())
        index = ShardIndex(records=[RecordEntry(length=len(data), clip_id=clip.clip_id)])
        forged = forge(written, index=index.SerializeToString(), shard=data)
        forged.shards[0].records = 1
        with pytest.raises(snapshot.SnapshotError, match="is damaged"):
            list(records.read(str(folder), forged, [records.Place(0, 0)]))


def test_an_undecodable_frame_is_reported(make_clip):
    clip = make_clip("a")
    clip.frames[0] = clip.frames[0][:40]
    with pytest.raises(snapshot.SnapshotError, match=r"a frame of record .* cannot be decoded"):
        strips.strip(clip)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.config.prompt_templates.append("{0.__class__}"), "prompt template"),
        (lambda m: m.config.prompt_templates.append("{:>999999999}"), "prompt template"),
        (lambda m: m.config.prompt_templates.append("none"), "prompt template"),
        (lambda m: setattr(m.config, "max_past_end_share", float("nan")), "max_past_end_share"),
        (lambda m: setattr(m.config.filters, "min_motion", float("inf")), "min_motion"),
        (lambda m: setattr(m.shards[0], "records", -1), "records of shard 0"),
        (lambda m: setattr(m.shards[0].data, "bytes", -1), "-1 bytes"),
        (lambda m: m.counts.rejects.update({"duplicate": -1}), "rejects of 'duplicate'"),
        (lambda m: setattr(m, "schema_version", "1.²"), "is not 'major.minor'"),
    ],
)
def test_a_manifest_with_impossible_numbers_is_refused(written, change, told):
    forged = Manifest()
    forged.CopyFrom(written[1])
    change(forged)
    with pytest.raises(contract.ContractError, match=told):
        contract.check_manifest(forged)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: setattr(m.config, "jpeg_quality", 91), "config_sha256"),
        (lambda m: m.versions.update({"ffmpeg": "8"}), "config_sha256"),
        (lambda m: setattr(m, "inputs_sha256", "0"), "inputs_sha256"),
        (lambda m: m.annotations.add(name="a.csv", sha256="0"), "inputs_sha256"),
    ],
)
def test_verify_notices_wrong_hashes_in_a_manifest(written, change, told):
    folder, manifest = written
    forged = copy.deepcopy(manifest)
    change(forged)
    assert any(told in line for line in verify.faults(str(folder), forged))
