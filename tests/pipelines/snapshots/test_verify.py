"""`verify` finds every planted fault."""

import hashlib

import numpy as np
import pytest

from pipelines.decoding import frame_codec
from pipelines.snapshots import snapshot, verify
from pipelines.snapshots.snapshot import config_sha256, shard_of
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG, Clip
from protos.v1.manifest_pb2 import (
    BuildConfig,
    Counts,
    FileEntry,
    Manifest,
    PlanSummary,
    Reject,
    ShardEntry,
    ShardSummary,
)

SHARDS = 2
IDS = [next(f"video{i}" for i in range(99) if shard_of(f"video{i}", SHARDS) == s) for s in (0, 1)]


def clip(shard, **changes):
    fields = {
        "clip_id": f"{IDS[shard]}_0_10_0",
        "video_id": IDS[shard],
        "start_us": 0,
        "end_us": 10,
        "caption": "a man",
        "frames": frame_codec.encode(np.zeros((1, 8, 12, 3), np.uint8), FRAME_ENCODING_JPEG, 90),
        "frame_time_us": [5],
        "frame_encoding": FRAME_ENCODING_JPEG,
        "height": 8,
        "width": 12,
    }
    return Clip(**(fields | changes))


def write(folder, *, clips=None, rejects=("duplicate",), change=lambda manifest: None):
    """Write two shards with one clip each, and rejects in the first shard and in the plan."""
    folder = str(folder)
    entries, videos = [], []
    for shard in range(SHARDS):
        stem = contract.shard_name(shard, SHARDS)
        with snapshot.ShardWriter(folder, stem) as writer:
            for record in (clips or {}).get(shard, [clip(shard)]):
                writer.append(record)
        summary = ShardSummary(
            rows=writer.records, records=writer.records, data=writer.data, index=writer.index
        )
        if shard == 0:
            summary.rows += len(rejects)
            summary.rejects.extend(Reject(reason=reason) for reason in rejects)
        entry = snapshot.write_file(folder, f"{stem}.json", snapshot.to_json(summary))
        videos.append(snapshot.videos_sha256(summary))
        entries.append(
            ShardEntry(records=writer.records, data=writer.data, index=writer.index, summary=entry)
        )
    records = sum(entry.records for entry in entries)
    plan = PlanSummary(rows=records + 2, rejects=[Reject(reason="span_empty")])
    config = BuildConfig(
        frames_per_clip=1, short_side=8, frame_encoding=FRAME_ENCODING_JPEG, num_shards=SHARDS
    )
    manifest = Manifest(
        schema_version=contract.SCHEMA_VERSION,
        inputs_sha256=snapshot.inputs_sha256([], videos),
        config_sha256=config_sha256(config, {}),
        config=config,
        counts=Counts(rows=records + 2, records=records, rejects={"duplicate": 1, "span_empty": 1}),
        shards=entries,
        plan=snapshot.write_file(folder, contract.PLAN_NAME, snapshot.to_json(plan)),
    )
    change(manifest)
    snapshot.write_file(folder, contract.MANIFEST_NAME, snapshot.to_json(manifest))


def faults(folder, workers=1):
    return verify.faults(str(folder), verify.read_manifest(str(folder)), workers)


def test_a_sound_snapshot(tmp_path):
    write(tmp_path)
    assert faults(tmp_path) == []


@pytest.mark.parametrize("suffix", ["tfrecord", "index", "json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_files(tmp_path, suffix, damage):
    write(tmp_path)
    path = tmp_path / f"{contract.shard_name(1, SHARDS)}.{suffix}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-1])
    assert any(fault.startswith(path.name) for fault in faults(tmp_path))


def test_several_processes_report_faults_in_order(tmp_path):
    write(tmp_path, clips={shard: [clip(shard, end_us=0)] for shard in range(SHARDS)})
    (tmp_path / contract.PLAN_NAME).unlink()
    told = faults(tmp_path, workers=2)
    assert told == faults(tmp_path, workers=1)
    beginnings = [fault.partition(":")[0] for fault in told[:3]]
    assert beginnings == [
        contract.PLAN_NAME,
        "shard-00000-of-00002.tfrecord",
        "shard-00001-of-00002.tfrecord",
    ]


def test_damage_with_valid_checksums_is_one_fault(tmp_path):
    def change(manifest):
        for name, entry in (
            (contract.PLAN_NAME, manifest.plan),
            ("shard-00000-of-00002.json", manifest.shards[0].summary),
        ):
            entry.CopyFrom(snapshot.write_file(str(tmp_path), name, b"{"))

    write(tmp_path, change=change)
    told = faults(tmp_path)
    assert sum("is damaged" in fault for fault in told) == 2
    assert "have 1 rows instead of the manifest's 4" in told[2]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (clip(0, end_us=0), "empty or negative"),
        (clip(0, frames=[]), "0 frames instead of the manifest's 1"),
        (clip(0, frames=[b"not a picture"]), "record"),
        (clip(0, width=13), "as recorded"),
        (clip(0, video_id=IDS[1]), "belongs to shard 1"),
        (clip(0, frame_time_us=[10]), "is outside"),
    ],
)
def test_wrong_records_with_valid_checksums(tmp_path, record, told):
    write(tmp_path, clips={0: [record]})
    (fault,) = faults(tmp_path)
    assert told in fault and fault.startswith("shard-00000-of-00002.tfrecord")


def test_rejects_are_counted_by_reason(tmp_path):
    write(tmp_path, rejects=("span_past_end",))
    (fault,) = faults(tmp_path)
    assert "span_past_end" in fault and "'duplicate': 1" in fault


def test_rows_are_counted(tmp_path):
    write(tmp_path, rejects=("duplicate", "duplicate"))
    told = " ".join(faults(tmp_path))
    assert "have 5 rows instead of the manifest's 4" in told


def _index(folder, edit):
    """Return a change of the first shard's index that updates all checksums."""

    def change(manifest):
        stem = contract.shard_name(0, SHARDS)
        index = snapshot.read_index(str(folder / f"{stem}.index"))
        edit(index.records[0])
        data = index.SerializeToString()
        (folder / f"{stem}.index").write_bytes(data)
        entry = FileEntry(
            name=f"{stem}.index", bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )
        summary = snapshot.read_json(str(folder / f"{stem}.json"), ShardSummary)
        summary.index.CopyFrom(entry)
        shard = manifest.shards[0]
        shard.index.CopyFrom(entry)
        json = snapshot.to_json(summary)
        shard.summary.CopyFrom(snapshot.write_file(str(folder), f"{stem}.json", json))

    return change


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("offset", 1, "at offset 1 instead of 0"),
        ("length", 20, "record"),
        ("clip_id", "z", "its clip_id is 'video"),
    ],
)
def test_a_wrong_index_with_valid_checksums(tmp_path, field, value, told):
    write(tmp_path, change=_index(tmp_path, lambda entry: setattr(entry, field, value)))
    assert told in " ".join(faults(tmp_path))


def test_a_manifest_cannot_list_outside_files(tmp_path):
    def change(manifest):
        manifest.shards[0].data.name = "../secret"

    write(tmp_path, change=change)
    assert "the manifest lists '../secret' instead" in faults(tmp_path)[0]


def test_unknown_files_are_faults(tmp_path):
    write(tmp_path)
    (tmp_path / "shard-00000-of-00009.tfrecord").touch()
    assert faults(tmp_path) == ["shard-00000-of-00009.tfrecord: not a file of this snapshot"]


def test_a_newer_major_version_is_refused(tmp_path):
    def change(manifest):
        manifest.schema_version = "2.0"

    write(tmp_path, change=change)
    with pytest.raises(contract.ContractError, match=r"2\.0.*1\.x"):
        verify.read_manifest(str(tmp_path))


def test_lost_rows_are_reported(tmp_path):
    def change(manifest):
        manifest.counts.rows += 1

    write(tmp_path, change=change)
    with pytest.raises(contract.ContractError, match="rows were lost"):
        verify.read_manifest(str(tmp_path))


def test_a_record_of_a_removed_video_is_a_fault(tmp_path, make_clip, write_snapshot):
    manifest = write_snapshot(tmp_path / "s", [make_clip("a"), make_clip("b")])
    manifest.removed_videos.append("b")
    (fault,) = verify.faults(str(tmp_path / "s"), manifest)
    assert fault.endswith("its video was taken down")
