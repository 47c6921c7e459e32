import hashlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from pipelines.cli.main import main
from pipelines.snapshots import records, remove, snapshot, verify
from pipelines.snapshots.snapshot import shard_of
from pipelines.sources import annotation_file
from protos.seen_marks import mark_of_file, mark_of_id
from protos.v1.manifest_pb2 import Reject

ROOT = pathlib.Path(__file__).parents[3]
SHARDS = 3
GONE = "video4"


@pytest.fixture
def written(tmp_path, make_clip, write_snapshot):
    clips = [make_clip(f"video{i}", start) for i in range(9) for start in (0, 2_000_000)]
    rejects = (Reject(reason="span_past_end", video_id=GONE, source_row="rows.csv:9"),)
    plan_rejects = (
        Reject(reason="span_empty", source_row="rows.csv:1", row=f"https://x/{GONE},2,1,secret"),
        Reject(reason="span_empty", source_row="rows.csv:2", row="video40,2,1,kept"),
    )
    folder = tmp_path / "old"
    manifest = write_snapshot(folder, clips, rejects=rejects, plan_rejects=plan_rejects)
    return folder, manifest, clips


@pytest.fixture(params=[1, 2])
def removed(written, tmp_path, request):
    folder, manifest, _ = written
    out = tmp_path / "new"
    ids = {GONE, "never seen"}
    done = remove.remove(str(folder), manifest, ids, str(out), "2.0.0", workers=request.param)
    assert done == remove.Removal(2, ["never seen"])
    return out


def test_the_new_version_is_sound_and_without_the_video(written, removed):
    _, old, clips = written
    manifest = verify.read_manifest(str(removed))
    assert verify.faults(str(removed), manifest) == []
    places = records.evenly_spaced(manifest, 99)
    kept = list(records.read(str(removed), manifest, places))
    assert {clip.clip_id for clip in kept} == {
        clip.clip_id for clip in clips if clip.video_id != GONE
    }
    assert manifest.data_version == "2.0.0"
    assert manifest.counts.rows == old.counts.rows
    assert manifest.counts.rejects == {"span_empty": 2, "video_removed": 3}
    assert manifest.removed_videos == ["never seen", GONE]
    assert manifest.inputs_sha256 != old.inputs_sha256


def test_only_the_videos_id_is_left(written, removed):
    assert not any(b"secret" in path.read_bytes() for path in removed.iterdir())
    manifest = verify.read_manifest(str(removed))
    rejects = {r.source_row: r for r in records.rejects(str(removed), manifest)}
    assert rejects["rows.csv:2"].row == "video40,2,1,kept"
    assert rejects["rows.csv:1"].row == ""
    assert rejects["rows.csv:9"].reason == "video_removed"
    assert rejects["rows.csv:9"].video_id == ""


def test_other_shards_are_the_same_files(written, removed):
    folder, _, _ = written
    touched = f"shard-{shard_of(GONE, SHARDS):05d}"
    others = [path for path in folder.glob("shard-*") if not path.name.startswith(touched)]
    assert len(others) == 3 * (SHARDS - 1)
    for path in others:
        assert (removed / path.name).samefile(path)


def test_the_old_version_stays_unchanged(written, removed):
    folder, manifest, _ = written
    assert verify.faults(str(folder), manifest) == []


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ({"never seen"}, "none of the 1 videos is in"),
        ({f"video{i}" for i in range(9)}, "every record belongs to the 9 videos"),
    ],
)
def test_removing_no_record_or_all_records_is_refused(written, tmp_path, ids, told):
    folder, manifest, _ = written
    with pytest.raises(snapshot.SnapshotError, match=told):
        remove.remove(str(folder), manifest, ids, str(tmp_path / "new"), "2.0.0")
    assert not (tmp_path / "new" / "manifest.json").exists()


@pytest.mark.parametrize("version", ["1.0.0", "0.9.9"])
def test_a_version_that_is_not_higher_is_refused(written, tmp_path, version):
    folder, manifest, _ = written
    with pytest.raises(snapshot.SnapshotError, match=r"not higher than 1\.0\.0.*: give a higher"):
        remove.remove(str(folder), manifest, {GONE}, str(tmp_path / "new"), version)
    assert not (tmp_path / "new").exists()


def test_a_complete_snapshot_is_not_overwritten(written):
    folder, manifest, _ = written
    with pytest.raises(snapshot.SnapshotError, match="choose an empty folder"):
        remove.remove(str(folder), manifest, {GONE}, str(folder), "2.0.0")


def test_files_behind_symbolic_links_are_linked_themselves(tmp_path):
    for name in ("store", "old", "new"):
        (tmp_path / name).mkdir()
    entry = snapshot.write_file(str(tmp_path / "store"), "a", b"12345")
    (tmp_path / "old" / "a").symlink_to("../store/a")
    snapshot.link_or_copy(str(tmp_path / "old"), entry, str(tmp_path / "new"))
    assert not (tmp_path / "new" / "a").is_symlink()
    assert (tmp_path / "new" / "a").samefile(tmp_path / "store" / "a")


def test_a_shard_of_another_version_is_not_carried(written, tmp_path):
    folder, manifest, _ = written
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    summary = next(mixed.glob("shard-*.json"))
    summary.write_bytes(summary.read_bytes() + b"\n")
    with pytest.raises(snapshot.SnapshotError, match="not the file that the manifest lists"):
        remove.remove(str(mixed), manifest, {GONE}, str(tmp_path / "new"), "2.0.0")


def test_a_copy_is_checked(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    entry = snapshot.write_file(str(tmp_path / "old"), "a", b"12345")
    (tmp_path / "new" / "a").touch()  # A link to another file system fails, so the file is copied.
    snapshot.link_or_copy(str(tmp_path / "old"), entry, str(tmp_path / "new"))
    assert (tmp_path / "new" / "a").read_bytes() == b"12345"
    (tmp_path / "old" / "a").write_bytes(b"12346")
    (tmp_path / "new" / "a").write_bytes(b"")
    with pytest.raises(snapshot.SnapshotError, match="is damaged"):
        snapshot.link_or_copy(str(tmp_path / "old"), entry, str(tmp_path / "new"))
    (tmp_path / "old" / "a").write_bytes(b"1234")
    with pytest.raises(snapshot.SnapshotError, match="4 bytes instead of 5"):
        snapshot.link_or_copy(str(tmp_path / "old"), entry, str(tmp_path / "other"))
    entry.name = "../a"
    with pytest.raises(snapshot.SnapshotError, match="outside its folder"):
        snapshot.link_or_copy(str(tmp_path / "old"), entry, str(tmp_path / "new"))


def test_the_command(written, cli, tmp_path):
    folder, _, _ = written
    (tmp_path / "gone.txt").write_text(f"{GONE}\n\n")
    done = cli("remove", folder, "--videos", tmp_path / "gone.txt", "--out", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert "version 2.0.0 has 16 records, 2 fewer" in done.stdout


SPELLINGS = ["Caf\u00e9", "Cafe\u0301", "Caf\u00e9.mp4", "Cafe\u0301.MKV"]
OTHERS = ["Cafe", "Caf\u00e9s", "Caf\u00e9.mp", "Caf\u00e9.1", "Caf\u00e9.mp4.txt", "v1", "v1.2"]


@pytest.mark.parametrize("listed", SPELLINGS)
def test_a_video_is_removed_in_every_spelling_of_its_id(
    tmp_path, make_clip, write_snapshot, listed
):
    assert len({shard_of(spelling, SHARDS) for spelling in SPELLINGS}) > 1
    clips = [make_clip(name, caption=f"a zq{name}") for name in [*SPELLINGS, *OTHERS]]
    rejects = tuple(
        Reject(reason="span_empty", video_id=name, source_row=f"r.csv:{i}", row="secret")
        for i, name in enumerate(SPELLINGS, 50)
    )
    old = write_snapshot(tmp_path / "old", clips, rejects=rejects, plan_rejects=rejects)
    done = remove.remove(
        str(tmp_path / "old"), old, {listed, "v1.2"}, str(tmp_path / "new"), "2.0.0"
    )
    assert done == remove.Removal(len(SPELLINGS) + 1, [])
    new = verify.read_manifest(str(tmp_path / "new"))
    assert verify.faults(str(tmp_path / "new"), new) == []
    kept = records.read(str(tmp_path / "new"), new, records.evenly_spaced(new, 99))
    assert {clip.video_id for clip in kept} == {*OTHERS} - {"v1.2"}
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "new").iterdir())
    videos = itertools.chain(*(one.videos for one in records.summaries(str(tmp_path / "new"), new)))
    assert {video.video_id for video in videos} == {*OTHERS} - {"v1.2"}


def test_repeated_lists_are_concatenated(written, cli, tmp_path):
    folder, _, _ = written
    for number in (3, 4, 5):
        (tmp_path / f"{number}.txt").write_text(f"video{number}\n")
    lists = [word for number in (3, 4, 5) for word in ("--videos", tmp_path / f"{number}.txt")]
    done = cli("remove", folder, *lists, "--out", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert "version 2.0.0 has 12 records, 6 fewer" in done.stdout
    manifest = verify.read_manifest(str(tmp_path / "new"))
    assert manifest.removed_videos == ["video3", GONE, "video5"]


def test_a_list_may_be_a_pipe(written, tmp_path):
    folder, _, _ = written
    command = '"$0" -m pipelines remove "$1" --videos <(echo "$2") --out "$3"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, folder, GONE, tmp_path / "new"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "version 2.0.0 has 16 records, 2 fewer" in done.stdout


def test_a_pipe_without_a_writer_is_refused(written, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(annotation_file, "_WRITER_SECONDS", 0.2)
    folder, _, _ = written
    os.mkfifo(tmp_path / "pipe")
    words = ["remove", folder, "--videos", tmp_path / "pipe", "--out", tmp_path / "new"]
    assert main([str(word) for word in words]) == 1
    assert f"no process writes to the pipe {tmp_path / 'pipe'}" in capsys.readouterr().err


def test_runs_that_may_have_seen_a_video_are_listed(written, tmp_path, capsys):
    folder, manifest, _ = written
    file = {
        v.video_id: v.sha256 for s in records.summaries(str(folder), manifest) for v in s.videos
    }
    marks = {
        "by-id": [mark_of_id(manifest.dataset, GONE, known=True)],
        "by-file": [7, mark_of_file(file[GONE])],
        "others": [mark_of_id(manifest.dataset, "video5", known=True), 2**64 - 1],
        "another data set": [mark_of_id("another", GONE, known=True)],
        "damaged": [8],
    }
    for name, of_run in marks.items():
        run = tmp_path / name
        run.mkdir()
        packed = b"".join(mark.to_bytes(8, "little") for mark in sorted(of_run))
        (run / "seen.bin").write_bytes(packed)
        sha256 = hashlib.sha256(packed if name != "damaged" else b"").hexdigest()
        (run / "data.json").write_text(json.dumps({"seen": {"videos": 1, "sha256": sha256}}))
    (tmp_path / "old run").mkdir()
    (tmp_path / "old run" / "data.json").write_text("{}")
    names = [*marks, "old run", "absent"]
    (tmp_path / "gone.txt").write_text(f"{GONE}.mp4\n")
    command = ["remove", str(folder), "--videos", str(tmp_path / "gone.txt"), "--out"]
    runs = [str(tmp_path / name) for name in names]
    assert main([*command, str(tmp_path / "new"), "--workers", "1", "--runs", *runs]) == 0
    lines = capsys.readouterr().out.splitlines()[-len(runs) :]
    found = dict(zip(names, lines, strict=True))
    for name in ("by-id", "by-file"):
        assert f"may have seen 1 of them: {GONE}" in found[name]
        assert f"svilm-train exposure --run {tmp_path / name} " in found[name]
    for name in ("others", "another data set"):
        assert found[name].endswith("has seen none of them")
    assert "seen.bin is damaged" in found["damaged"]
    assert "an earlier release" in found["old run"]
    assert "No such file" in found["absent"]
