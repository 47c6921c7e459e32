"""Appends by the command line, onto a snapshot that two commands share."""

import shutil
import threading

import pytest

from pipelines.building import other_increments
from pipelines.cli import main
from pipelines.snapshots import increments, records, run_lock, snapshot, tags, verify
from pipelines.storage import storage
from protos import contract

HERE, LATER, MISSING = "video_one__", "video_two__", "no_video___"
OLD = [
    (HERE, 0, 1_000_000, "A man rides a brown horse"),
    (HERE, 1_000_000, 2_000_000, "The dog eats"),
    (MISSING, 0, 1_000_000, "nothing here"),
    (HERE, "soon", "later", "no time"),
]
NEW = [
    (LATER, 0, 1_000_000, "a cat"),
    (HERE, 2_000_000, 3_000_000, "a bird"),
    OLD[0],
    (MISSING, 0, 1_000_000, "nothing new"),
    (LATER, 2, 1, "no span"),
]


def write_rows(path, rows):
    lines = [",".join(map(str, row)) for row in rows]
    path.write_text("url,start,end,caption\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def run():
    """Return run(…), which runs a command in this process, because imports take seconds."""
    hook = threading.excepthook

    def here(*words, status=0):
        assert main.main([str(word) for word in words]) == status

    yield here
    threading.excepthook = hook


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_video, run):
    """Return a folder of annotations, videos and a snapshot of the old rows, 1.0.0."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "videos").mkdir()
    for name in (HERE, LATER):
        make_video(folder / "videos" / f"{name}.mkv")
    write_rows(folder / "old.csv", OLD)
    write_rows(folder / "new.csv", NEW)
    where = ("--annotations", folder / "old.csv", "--videos", folder / "videos")
    options = ("--frames", "4", "--short-side", "24", "--shards", "3", "--min-words", "2")
    run("build", "videocc", *where, "--out", folder / "1.0.0", *options)
    return folder


def appended(inputs, base, out, *more, rows="new.csv"):
    where = ("--annotations", inputs / rows, "--videos", inputs / "videos", "--out", out)
    return ("append", base, "videocc", *where, *more)


@pytest.fixture(scope="module")
def grown(inputs, run):
    """Return the version with the new rows, 1.1.0."""
    run(*appended(inputs, inputs / "1.0.0", inputs / "1.1.0", "--shards", 2))
    return inputs / "1.1.0"


def contents(folder):
    return {name: storage.read(f"{folder}/{name}") for name in storage.names(str(folder))}


def ids(folder):
    manifest = verify.read_manifest(str(folder))
    shards = range(len(manifest.shards))
    return [one.clip_id for i in shards for one in records.index(str(folder), manifest, i)]


def test_an_append_shares_all_files_and_numbers_its_records_after_the_old(inputs, grown):
    old, new = verify.read_manifest(str(inputs / "1.0.0")), verify.read_manifest(str(grown))
    assert verify.faults(str(grown), new) == []
    for name in storage.names(str(inputs / "1.0.0")):
        if name != contract.MANIFEST_NAME:
            assert (grown / name).samefile(inputs / "1.0.0" / name)
    assert list(new.shards[:3]) == list(old.shards)
    assert ids(grown)[:2] == ids(inputs / "1.0.0") and len(ids(grown)) == 4
    assert (new.data_version, new.schema_version) == ("1.1.0", contract.INCREMENTS_VERSION)
    assert old.schema_version == contract.SCHEMA_VERSION and not old.increments
    assert (new.counts.rows, new.counts.records) == (9, 4)
    assert new.counts.rejects == {
        **dict(old.counts.rejects),
        "video_missing": 2,
        "already_present": 1,
        "span_empty": 1,
    }


def test_the_manifest_keeps_the_lineage(inputs, grown):
    first, second = verify.read_manifest(str(grown)).increments
    assert (first.shards, first.annotations, first.data_version) == (3, 1, "1.0.0")
    assert (second.shards, second.annotations, second.data_version) == (2, 1, "1.1.0")
    assert second.previous_sha256 == storage.sha256(f"{inputs}/1.0.0/manifest.json")
    assert [file.name for file in verify.read_manifest(str(grown)).annotations] == [
        "old.csv",
        "new.csv",
    ]
    manifest = verify.read_manifest(str(grown))
    joined = increments.joined(increments.split(manifest), manifest.data_version)
    joined.counts.CopyFrom(manifest.counts)
    assert joined == manifest


def test_the_same_append_again_changes_nothing_and_another_is_refused(inputs, grown, run, capsys):
    before = contents(grown)
    run(*appended(inputs, inputs / "1.0.0", grown, "--shards", 2))
    assert "already complete" in capsys.readouterr().out
    run(*appended(inputs, inputs / "1.0.0", grown, "--shards", 3), status=1)
    assert "--shards 2 → 3" in capsys.readouterr().err
    run(*appended(inputs, inputs / "1.0.0", inputs / "1.0.0"), status=1)
    assert "choose another folder" in capsys.readouterr().err
    run(*appended(inputs, inputs / "1.0.0", inputs / "1.0.0" / "new"), status=1)
    assert "must stay unchanged" in capsys.readouterr().err
    assert contents(grown) == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--frames", 8), ["--frames 4 → 8"]),
        (("--short-side", 32, "--square"), ["--short-side 24 → 32", "--square not given → yes"]),
        (("--encoding", "png"), ["--encoding jpeg → png"]),
        (("--jpeg-quality", 50), ["--jpeg-quality 95 → 50"]),
        (("--min-words", 3), ["--min-words 2 → 3"]),
        (("--data-version", "0.9.0"), ["0.9.0", "1.0.0"]),
    ],
)
def test_other_options_are_refused_with_both_values(inputs, tmp_path, run, capsys, more, told):
    run(*appended(inputs, inputs / "1.0.0", tmp_path / "out", *more), status=1)
    said = capsys.readouterr().err
    assert all(text in said for text in told), said
    assert not (tmp_path / "out").exists()


def test_files_that_are_in_or_are_empty_or_bring_nothing_are_refused(inputs, tmp_path, run, capsys):
    base, out = inputs / "1.0.0", tmp_path / "out"
    run(*appended(inputs, base, out, rows="old.csv"), status=1)
    assert "'old.csv' is a part of" in capsys.readouterr().err
    same_name = tmp_path / "old.csv"
    write_rows(same_name, NEW)
    run(*appended(inputs, base, out, rows=same_name), status=1)
    assert "rename the file" in capsys.readouterr().err
    empty = tmp_path / "empty.csv"
    empty.touch()
    run(*appended(inputs, base, out, rows=empty), status=1)
    assert "has no rows" in capsys.readouterr().err
    again = write_rows(tmp_path / "again.csv", OLD[:2])
    run(*appended(inputs, base, out, rows=again), status=1)
    said = capsys.readouterr().err
    assert "already_present 2" in said and "came with version 1.0.0" in said
    assert not (out / contract.MANIFEST_NAME).exists()


def test_another_source_has_options_of_its_own(inputs, grown, tmp_path, run):
    rows = tmp_path / "lab.csv"
    rows.write_text(f"video,begin,stop,text\n{LATER},2,3,a green bird\n{LATER},0,1,a cat\n")
    words = ("--annotations", rows, "--videos", inputs / "videos", "--out", tmp_path / "1.2.0")
    columns = ("--columns", "start=begin", "end=stop", "caption=text")
    run("append", grown, "generic", *words, *columns)
    manifest = verify.read_manifest(str(tmp_path / "1.2.0"))
    assert verify.faults(str(tmp_path / "1.2.0"), manifest) == []
    assert (manifest.dataset, manifest.increments[2].dataset) == ("videocc", "generic")
    assert dict(manifest.increments[2].source.columns) == {
        "start": "begin",
        "end": "stop",
        "caption": "text",
    }
    assert ids(tmp_path / "1.2.0")[:4] == ids(grown)
    assert (manifest.counts.records, manifest.counts.rejects["already_present"]) == (5, 2)
    rows = tmp_path / "more.csv"  # The columns of the earlier append are the defaults.
    rows.write_text(f"video,begin,stop,text\n{LATER},1,2,a red bird\n")
    words = ("--annotations", rows, "--videos", inputs / "videos", "--out", tmp_path / "1.3.0")
    run("append", tmp_path / "1.2.0", "generic", *words)
    assert verify.read_manifest(str(tmp_path / "1.3.0")).counts.records == 6
    run(
        *("append", tmp_path / "1.2.0", "generic", *words[:-1], tmp_path / "out"),
        *("--keep-empty-captions",),
        status=2,
    )


def test_every_command_reads_an_appended_version(inputs, grown, tmp_path, run, capsys):
    run("verify", grown, "--workers", 1)
    run("inspect", grown, "3:0", ids(grown)[0])
    run("describe", grown, "--out", tmp_path / "card.html")
    card = (tmp_path / "card.html").read_text()
    assert "new.csv" in card and "came with version" in card
    run("export", grown, "--out", tmp_path / "tars", "--workers", 1)
    assert len(list((tmp_path / "tars").glob("*.tar"))) == 5
    capsys.readouterr()
    run("diff", inputs / "1.0.0", grown)
    said = capsys.readouterr().out
    assert "added: 2 (new annotation row)" in said and "unchanged: 2 records" in said
    (tmp_path / "gone.txt").write_text(f"{LATER}\n")
    gone = ("--videos", tmp_path / "gone.txt", "--out", tmp_path / "2.0.0", "--workers", 1)
    run("remove", grown, *gone)
    manifest = verify.read_manifest(str(tmp_path / "2.0.0"))
    assert verify.faults(str(tmp_path / "2.0.0"), manifest) == []
    assert (manifest.counts.records, len(manifest.increments)) == (3, 2)
    assert LATER not in "".join(map(str, contents(tmp_path / "2.0.0").keys()))
    run(*appended(inputs, tmp_path / "2.0.0", tmp_path / "out"), status=1)
    assert "'new.csv' is a part of" in capsys.readouterr().err
    rows = write_rows(tmp_path / "back.csv", [NEW[0], (HERE, 2_500_000, 3_500_000, "one more")])
    run(*appended(inputs, tmp_path / "2.0.0", tmp_path / "2.1.0", rows=rows))
    manifest = verify.read_manifest(str(tmp_path / "2.1.0"))
    assert verify.faults(str(tmp_path / "2.1.0"), manifest) == []
    assert manifest.counts.rejects["video_removed"] == 2  # of the removal and of the append


@pytest.mark.parametrize(("rows", "number"), [("old.csv", 0), ("new.csv", 1)])
def test_rejects_of_one_increment_are_retried(
    inputs, grown, tmp_path, run, capsys, rows, number, make_video
):
    videos = tmp_path / "videos"
    shutil.copytree(inputs / "videos", videos)
    make_video(videos / f"{MISSING}.mkv")
    where = ("--annotations", inputs / rows, "--videos", videos, "--out", tmp_path / "1.2.0")
    options = ("--frames", 4, "--short-side", 24, "--min-words", 2, "--retry-rejects", grown)
    shards = ("--shards", 3) if number == 0 else ()
    run("build", "videocc", *where, *options, *shards, "--data-version", "1.2.0")
    old, new = verify.read_manifest(str(grown)), verify.read_manifest(str(tmp_path / "1.2.0"))
    assert verify.faults(str(tmp_path / "1.2.0"), new) == []
    assert new.counts.records - old.counts.records == 1
    assert new.counts.rows == old.counts.rows
    other = slice(3, 5) if number == 0 else slice(0, 3)
    assert list(new.shards[other]) == list(old.shards[other])
    assert [one.data_version for one in new.increments] == ["1.0.0", "1.1.0"]
    assert new.increments[1].previous_sha256 == old.increments[1].previous_sha256


def test_an_unfinished_or_damaged_version_is_refused(inputs, grown, tmp_path, run, capsys):
    base, out = tmp_path / "1.0.0", tmp_path / "out"
    shutil.copytree(inputs / "1.0.0", base)
    index = next(path for path in base.glob("*.index") if path.stat().st_size)
    sound = index.read_bytes()
    index.write_bytes(sound[:-1])
    run(*appended(inputs, base, out), status=1)
    assert index.name in capsys.readouterr().err
    assert not (out / contract.MANIFEST_NAME).exists()
    index.write_bytes(sound)
    (base / "manifest.json").rename(tmp_path / "manifest.json")
    run(*appended(inputs, base, tmp_path / "other"), status=1)
    assert "incomplete" in capsys.readouterr().err
    (tmp_path / "manifest.json").rename(base / "manifest.json")
    run(*appended(inputs, base, out, "--shards", 2))  # The damage is mended: the append resumes.
    shared = {name: data for name, data in contents(out).items() if name != "manifest.json"}
    assert shared == {k: v for k, v in contents(grown).items() if k != "manifest.json"}


def test_a_manifest_that_names_files_elsewhere_is_refused(inputs, tmp_path, run, capsys):
    shutil.copytree(inputs / "1.0.0", tmp_path / "1.0.0")
    path = tmp_path / "1.0.0" / "manifest.json"
    path.write_text(path.read_text().replace('"plan.json"', '"../../secret.json"'))
    run(*appended(inputs, tmp_path / "1.0.0", tmp_path / "out"), status=1)
    assert "../../secret.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_signature_is_not_carried_over(inputs, tmp_path, run):
    shutil.copytree(inputs / "1.0.0", tmp_path / "1.0.0")
    (tmp_path / "1.0.0" / contract.SIGNATURE_NAME).write_text("{}")
    run(*appended(inputs, tmp_path / "1.0.0", tmp_path / "1.1.0"))
    assert contract.SIGNATURE_NAME not in contents(tmp_path / "1.1.0")
    (tmp_path / "1.1.0" / contract.SIGNATURE_NAME).write_text("{}")
    run(*appended(inputs, tmp_path / "1.0.0", tmp_path / "1.1.0"))  # already complete
    assert (
        verify.faults(str(tmp_path / "1.1.0"), verify.read_manifest(str(tmp_path / "1.1.0"))) == []
    )


def test_an_append_that_stopped_while_it_shared_files_resumes(
    inputs, grown, tmp_path, run, monkeypatch
):
    out = tmp_path / "1.1.0"
    words = appended(inputs, inputs / "1.0.0", out, "--shards", 2)
    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "write_manifest", lambda *_: 1 / 0)
        run(*words, status=1)
    (out / "plan.json").unlink()
    (out / "shard-00000-of-00003.index").unlink()
    shutil.copy(inputs / "1.0.0" / "shard-00000-of-00003.index", out)  # not a link
    (out / "shard-00001-of-00003.index.0.unfinished").write_text("half")
    run(*words)
    assert contents(out) == contents(grown)


def test_two_appends_at_once_do_not_share_a_folder(inputs, tmp_path, run, capsys):
    with run_lock.held(str(tmp_path / "1.1.0")):
        run(*appended(inputs, inputs / "1.0.0", tmp_path / "1.1.0"), status=1)
    assert "another command is writing" in capsys.readouterr().err


def test_an_append_in_a_bucket_has_the_bytes_of_one_on_a_disk(inputs, grown, lab, run):
    for name, data in contents(inputs / "1.0.0").items():
        storage.write_new(f"{lab}/1.0.0/{name}", data)
    run(*appended(inputs, f"{lab}/1.0.0", f"{lab}/1.1.0", "--shards", 2))
    assert contents(f"{lab}/1.1.0") == contents(grown)


def test_verify_finds_a_clip_of_two_increments(inputs, tmp_path, run, monkeypatch, capsys):
    monkeypatch.setattr(other_increments, "present", lambda *_: {})
    run(*appended(inputs, inputs / "1.0.0", tmp_path / "1.1.0"))
    run("verify", tmp_path / "1.1.0", "--workers", 1, status=1)
    assert "is a record of an earlier increment, too" in capsys.readouterr().out


def test_an_append_moves_a_tag_from_the_version_to_which_it_appended(inputs, tmp_path, run, capsys):
    shutil.copytree(inputs / "1.0.0", tmp_path / "1.0.0")
    run("tag", tmp_path / "1.0.0", "latest")
    words = appended(inputs, f"{tmp_path}@latest", tmp_path / "1.1.0", "--tag", "latest")
    run(*words)
    assert tags.resolve(f"{tmp_path}@latest") == f"{tmp_path}/1.1.0"
    run(*words)  # The tag now is the new version's.
    assert "already complete" in capsys.readouterr().out
    run(*appended(inputs, tmp_path / "1.0.0", tmp_path / "other", "--tag", "latest"), status=1)
    assert "the tag 'latest' is at '1.1.0'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    run(*appended(inputs, tmp_path / "1.0.0", tmp_path / "1.1.0", "--tag", "latest"))
    assert [move.folder for move in tags.history(str(tmp_path), "latest")] == ["1.0.0", "1.1.0"]
