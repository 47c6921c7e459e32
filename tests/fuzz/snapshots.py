"""A snapshot's files, read like the commands read them.

`verify` must report damage. A forged file, with valid checksums of wrong content, may be valid or
not, but every command that fails does so in one line.
"""

import contextlib
import copy
import functools
import hashlib
import json
import pathlib
import random
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import google_crc32c
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from pipelines.snapshots import diff, plan_summary, records, remove, snapshot, verify
from pipelines.snapshots.card import page, strips, text
from pipelines.snapshots.export import parquet, sequence_example, webdataset
from pipelines.sources.clip_request import reject
from protos import contract, tfrecord
from protos.v1.clip_pb2 import Box, Clip, Question, Segment
from protos.v1.manifest_pb2 import Manifest, ShardIndex, ShardSummary
from tests.fuzz import mutate
from tests.fuzz.engine import Target
from tests.fuzz.folder import folder
from tests.pipelines.conftest import clip_of, write_small_snapshot

_REFUSALS = (snapshot.SnapshotError, contract.ContractError)
_SHARDS = 2
_SHARD = 0  # the damaged shard
_STEM = contract.shard_name(_SHARD, _SHARDS)


class Sound(NamedTuple):
    """A valid snapshot."""

    files: dict[str, bytes]
    manifest: Manifest
    records: frozenset[bytes]


@functools.cache
def sound() -> Sound:
    """Write a snapshot of a few records and rejects, and return its files."""
    clips = [clip_of(f"{name}", second * 1_000_000) for name in "abc" for second in range(2)]
    for clip in clips[:2]:
        clip.labels.append("run")
        clip.captions.extend([clip.caption, "another"])
        clip.questions.append(Question(question_id="1", text="who?", answer="he", type="who"))
        clip.segments.append(Segment(start_us=0, end_us=5, label="run"))
        clip.boxes.append(Box(time_us=1, x1=0.1, y1=0.1, x2=0.5, y2=0.5, labels=["1"], score=0.5))
    refused = reject("decode", "video_missing", "no d.mp4", source_row="a.csv:9", video_id="d")
    early = reject("read", "row_columns", "2 columns", source_row="a.csv:10", row="x,y")
    path = folder() / "sound"
    manifest = write_small_snapshot(
        path, clips, shards=_SHARDS, rejects=(refused,), plan_rejects=(early,)
    )
    files = {one.name: one.read_bytes() for one in path.iterdir()}
    assert verify.faults(str(path), manifest) == []
    made = frozenset(clip.SerializeToString(deterministic=True) for clip in clips)
    return Sound(files, manifest, made)


def targets() -> list[Target]:
    """Return one target per kind of file, forged or damaged."""
    files = sound().files
    data, index, summary = (files[f"{_STEM}.{suffix}"] for suffix in ("tfrecord", "index", "json"))
    record = tfrecord.unframe(data[: 16 + struct.unpack_from("<Q", data)[0]])
    return [
        Target("manifest", [files["manifest.json"]], _manifest, mutate.json_text),
        Target("index", [index], _index, mutate.protobuf(ShardIndex)),
        Target("shard", [data], _shard, mutate.framed(mutate.protobuf(Clip))),
        Target("summary", [summary], _summary, mutate.json_text),
        Target("plan", [files["plan.json"]], _plan, mutate.json_text),
        Target("record", [record], _record, mutate.protobuf(Clip)),
        Target("damage", [_damage(name) for name in _not_empty()], _damaged, _other_damage),
    ]


# --- Snapshots with one replaced file ---


def _with(files: dict[str, bytes]) -> str:
    """Return the valid snapshot with some files replaced."""
    path = folder() / "tried"
    path.mkdir(exist_ok=True)
    for name, data in (sound().files | files).items():
        there = path / name
        if not there.exists() or there.read_bytes() != data:
            there.write_bytes(data)
    return str(path)


def _forged(suffix: str, data: bytes, change: Callable[[Manifest], None] = lambda _: None) -> str:
    """Return files with one replaced, and its checksums updated in manifest and summary."""
    found = sound()
    manifest = copy.deepcopy(found.manifest)
    files = {f"{_STEM}.{suffix}": data}
    digest = hashlib.sha256(data).hexdigest()
    entry = manifest.shards[_SHARD]
    kinds = {"tfrecord": entry.data, "index": entry.index, "json": entry.summary}
    kinds[suffix].bytes, kinds[suffix].sha256 = len(data), digest
    change(manifest)
    if suffix != "json":
        summary = _parsed(found.files[f"{_STEM}.json"])
        summary.data.CopyFrom(entry.data)
        summary.index.CopyFrom(entry.index)
        summary.records = entry.records
        rewritten = snapshot.to_json(summary)
        files[f"{_STEM}.json"] = rewritten
        entry.summary.bytes = len(rewritten)
        entry.summary.sha256 = hashlib.sha256(rewritten).hexdigest()
    files["manifest.json"] = snapshot.to_json(manifest)
    return _with(files)


def _parsed(data: bytes) -> ShardSummary:
    return json_format.Parse(data, ShardSummary())


# --- Checks ---


def _use(path: str) -> tuple[list[str], list[Clip]]:
    """Verify and read a snapshot; return the faults and the readable records."""
    verify.manifest_of.cache_clear()
    try:
        manifest = verify.read_manifest(path)
    except _REFUSALS as error:
        return [_one_line(error)], []
    faults = verify.faults(path, manifest)
    assert all("\n" not in line for line in faults), "a fault of several lines"
    found: list[Clip] = []
    for use in (
        lambda: found.extend(records.read(path, manifest, _every(manifest))),
        lambda: list(records.rejects(path, manifest)),
        lambda: list(records.summaries(path, manifest)),
        lambda: records.find(path, manifest, ["a_0_1000000", "0:0"]),
        lambda: plan_summary.rows(path),
        lambda: diff.lines(diff.compare(path, manifest, path, manifest), maximum=5),
    ):
        try:
            use()
        except _REFUSALS as error:
            _one_line(error)
    return faults, found


def _every(manifest: Manifest) -> Iterator[records.Place]:
    yield from records.evenly_spaced(manifest, 50)


def _one_line(error: Exception) -> str:
    assert "\n" not in str(error), "a message of several lines"
    return str(error)


def _manifest(data: bytes) -> None:
    faults, found = _use(_with({"manifest.json": data}))
    assert all(_bytes(clip) in sound().records for clip in found)
    del faults


def _index(data: bytes) -> None:
    def change(manifest: Manifest) -> None:
        with contextlib.suppress(DecodeError):
            count = len(ShardIndex.FromString(data).records)
            if len(data) % 2:
                _recount(manifest, count)

    faults, found = _use(_forged("index", data, change))
    if data != sound().files[f"{_STEM}.index"]:
        ours = ShardIndex.FromString(sound().files[f"{_STEM}.index"])
        assert faults or _same_index(data, ours), "another index and no fault"
    assert all(_bytes(clip) in sound().records for clip in found), "a record that is none"


def _same_index(data: bytes, ours: ShardIndex) -> bool:
    theirs = ShardIndex.FromString(data)
    theirs.DiscardUnknownFields()
    for entry in theirs.records:
        entry.DiscardUnknownFields()
    return theirs == ours


def _recount(manifest: Manifest, records: int) -> None:
    manifest.counts.records += records - manifest.shards[_SHARD].records
    manifest.counts.rows += records - manifest.shards[_SHARD].records
    manifest.shards[_SHARD].records = records


def _shard(data: bytes) -> None:
    faults, found = _use(_forged("tfrecord", data))
    entries = ShardIndex.FromString(sound().files[f"{_STEM}.index"]).records
    whole = set(_whole_records(data))
    assert faults or len(whole) == len(entries), "a damaged record and no fault"
    whole |= sound().records
    assert all(_bytes(clip) in whole for clip in found), "a record whose checksum is wrong"


def _whole_records(data: bytes) -> Iterator[bytes]:
    """Return the records at the index's offsets with valid checksums."""
    for entry in ShardIndex.FromString(sound().files[f"{_STEM}.index"]).records:
        framed = data[entry.offset : entry.offset + entry.length]
        body, checksum = framed[12:-4], framed[-4:]
        crc = google_crc32c.value(body)
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        if checksum == struct.pack("<I", masked):
            with contextlib.suppress(DecodeError):
                yield _bytes(Clip.FromString(body))


def _bytes(clip: Clip) -> bytes:
    return clip.SerializeToString(deterministic=True)


def _summary(data: bytes) -> None:
    _use(_forged("json", data))


def _plan(data: bytes) -> None:
    manifest = copy.deepcopy(sound().manifest)
    manifest.plan.bytes, manifest.plan.sha256 = len(data), hashlib.sha256(data).hexdigest()
    _use(_with({"plan.json": data, "manifest.json": snapshot.to_json(manifest)}))


def _record(data: bytes) -> None:
    """Run every command on a snapshot with one forged record in a consistent shard."""
    frames = sound().files[f"{_STEM}.tfrecord"]
    (length,) = struct.unpack_from("<Q", frames)
    ours = tfrecord.frame(data)
    rest = frames[16 + length :]
    index = ShardIndex.FromString(sound().files[f"{_STEM}.index"])
    with contextlib.suppress(DecodeError):
        index.records[0].clip_id = Clip.FromString(data).clip_id
    shift = len(ours) - index.records[0].length
    index.records[0].length = len(ours)
    for entry in index.records[1:]:
        entry.offset += shift
    of_index = index.SerializeToString(deterministic=True)

    def change(manifest: Manifest) -> None:
        entry = manifest.shards[_SHARD].index
        entry.bytes, entry.sha256 = len(of_index), hashlib.sha256(of_index).hexdigest()

    path = _forged("tfrecord", ours + rest, change)
    pathlib.Path(path, f"{_STEM}.index").write_bytes(of_index)
    faults, _ = _use(path)
    manifest = verify.read_manifest(path)
    out = folder() / "out"
    for use in (
        lambda: strips.png(strips.entries(path, manifest, [records.Place(_SHARD, 0)])),
        lambda: _texts(path, manifest),
        lambda: page.data_card(path, manifest, clips=3, records=9, progress=lambda done, of: None),
        lambda: webdataset.write(path, manifest, str(out), workers=1),
        lambda: sequence_example.write(path, manifest, str(out), workers=1),
        lambda: parquet.write([parquet.Split("train", path, manifest)], str(out), workers=1),
        lambda: remove.remove(path, manifest, {"a"}, str(out), "2.0.0", workers=1),
    ):
        _empty(out)
        try:
            use()
        except _REFUSALS as error:
            _one_line(error)
            # verify reads only the frames' headers.
            assert faults or "cannot be decoded" in str(error), f"no fault, and yet: {error}"
    _empty(out)


def _texts(path: str, manifest: Manifest) -> None:
    entries = strips.entries(path, manifest, [records.Place(_SHARD, 0)])
    for entry in entries:
        text.lines(entry)
    page.contact_sheet(path, manifest, entries)


def _empty(out: pathlib.Path) -> None:
    out.mkdir(exist_ok=True)
    for one in out.iterdir():
        one.unlink()


# --- Single bytes ---


def _damage(name: str, at: int = 7, flipped: int = 1) -> bytes:
    return json.dumps([name, at, flipped]).encode()


def _other_damage(data: bytes, draw: random.Random) -> bytes:
    del data
    name = draw.choice(_not_empty())
    length = len(sound().files[name])
    return _damage(name, draw.randrange(length), draw.randrange(1, 256))


def _not_empty() -> list[str]:
    return sorted(name for name, data in sound().files.items() if data)


def _damaged(data: bytes) -> None:
    """Change one byte of any file, which verify must report."""
    name, at, flipped = json.loads(data)
    content = bytearray(sound().files[name])
    content[at] ^= flipped
    path = _with({name: bytes(content)})
    faults, _ = _use(path)
    if name == contract.MANIFEST_NAME and not faults:
        theirs = snapshot.read_json(f"{path}/{name}", Manifest)
        # No other file has a checksum of these.
        for field in ("data_version", "dataset", "schema_version", "annotations"):
            theirs.ClearField(field)
        ours = copy.deepcopy(sound().manifest)
        for field in ("data_version", "dataset", "schema_version", "annotations"):
            ours.ClearField(field)
        assert theirs == ours, f"byte {at} of {name} is another and verify finds no fault"
    else:
        assert faults, f"byte {at} of {name} is another and verify finds no fault"
