"""Tags on a disk and in buckets: set, moved, deleted, resolved, and raced for."""

import concurrent.futures
import json
import os

import pytest

from pipelines.cli.main import main
from pipelines.snapshots import snapshot, tags
from pipelines.storage import storage
from protos.v1.manifest_pb2 import TagMove


@pytest.fixture(scope="module", params=["disk", "lab", "s3_lab"])
def place(request, tmp_path_factory):
    """Return a folder on a disk or in a bucket."""
    if request.param == "disk":
        return str(tmp_path_factory.mktemp("corpus"))
    return request.getfixturevalue(request.param)


@pytest.fixture
def corpus(place, request, tmp_path, make_clip, write_snapshot):
    """Return a folder of the versions 1.0.0, 1.1.0 and 2.0.0."""
    folder = f"{place}/{request.node.name.partition('[')[0]}"
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        local = tmp_path / version
        write_snapshot(local, [make_clip("video")], shards=1, data_version=version)
        storage.make_folder(f"{folder}/{version}")
        for path in local.iterdir():
            storage.write_new(f"{folder}/{version}/{path.name}", path.read_bytes())
    return folder


def test_a_tag_is_set_moved_deleted_and_keeps_its_history(corpus):
    assert tags.put(f"{corpus}/1.0.0", "latest", move=False) == ""
    assert tags.put(f"{corpus}/1.0.0", "latest", move=False) == ""  # It is there.
    with pytest.raises(tags.TagError, match=r"at '1\.0\.0'.*--move"):
        tags.put(f"{corpus}/1.1.0", "latest", move=False)
    assert tags.put(f"{corpus}/1.1.0", "latest", move=True) == "from '1.0.0' "
    tags.put(f"{corpus}/1.0.0", "paper-1.0", move=False)
    assert tags.resolve(f"{corpus}@latest") == f"{corpus}/1.1.0"
    assert tags.resolve(f"{corpus}/1.1.0") == f"{corpus}/1.1.0"
    tags.delete(corpus, "latest")
    with pytest.raises(tags.TagError, match=r"no tag 'latest'.*'paper-1\.0'"):
        tags.resolve(f"{corpus}@latest")
    tags.put(f"{corpus}/2.0.0", "latest", move=False)
    assert [move.folder for move in tags.history(corpus, "latest")] == [
        *("1.0.0", "1.1.0", "", "2.0.0")
    ]
    assert {tag: of.number for tag, of in tags.all_positions(corpus).items()} == {
        "latest": 4,
        "paper-1.0": 1,
    }


def test_an_altered_version_is_refused(corpus):
    tags.put(f"{corpus}/1.0.0", "latest", move=False)
    path = f"{corpus}/1.0.0/manifest.json"
    data = storage.read(path)
    storage.remove(path)
    with pytest.raises(tags.TagError, match="cannot be read"):
        tags.resolve(f"{corpus}@latest")
    storage.write_new(path, data + b" ")
    with pytest.raises(tags.TagError, match="as when it was tagged"):
        tags.resolve(f"{corpus}@latest")


def test_a_new_version_moves_a_tag_only_from_where_it_began(corpus):
    tags.advance(f"{corpus}/1.0.0", "latest", None)
    tags.check(f"{corpus}/1.1.0", "latest", f"{corpus}/1.0.0")
    tags.advance(f"{corpus}/1.1.0", "latest", f"{corpus}/1.0.0")
    tags.advance(f"{corpus}/1.1.0", "latest", f"{corpus}/1.0.0")  # a resumed command
    for call in (tags.check, tags.advance):
        with pytest.raises(tags.TagError, match=r"at '1\.1\.0'.*not at .*1\.0\.0"):
            call(f"{corpus}/2.0.0", "latest", f"{corpus}/1.0.0")
    assert tags.resolve(f"{corpus}@latest") == f"{corpus}/1.1.0"
    with pytest.raises(tags.TagError, match="'tags'"):
        tags.check(f"{corpus}/tags", "latest", None)


def test_of_writers_at_once_one_moves_the_tag_and_none_is_lost(corpus):
    tags.put(f"{corpus}/1.0.0", "latest", move=False)

    def grow(version):
        try:
            tags.advance(f"{corpus}/{version}", "latest", f"{corpus}/1.0.0")
        except tags.TagError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        others = threads.map(
            lambda i: tags.put(f"{corpus}/1.0.0", f"other-{i}", move=False), range(4)
        )
        won = list(threads.map(grow, ["1.1.0", "2.0.0"]))
        assert list(others) == [""] * 4
    assert sorted(won) == [False, True]
    assert [move.folder for move in tags.history(corpus, "latest")] == [
        "1.0.0",
        ["1.1.0", "2.0.0"][won.index(True)],
    ]
    assert len(tags.all_positions(corpus)) == 5


def test_a_lost_race_is_an_error(corpus, monkeypatch):
    tags.put(f"{corpus}/1.0.0", "latest", move=False)
    behind = tags.position(corpus, "latest")
    tags.put(f"{corpus}/1.1.0", "latest", move=True)
    now = tags.position(corpus, "latest")
    places = iter([behind, now])
    monkeypatch.setattr(tags, "position", lambda *_: next(places))
    with pytest.raises(tags.TagError, match=r"moved the tag 'latest' to '1\.1\.0'"):
        tags.put(f"{corpus}/2.0.0", "latest", move=True)


def test_a_path_leads_nowhere_else(tmp_path, capsys):
    os.makedirs(tmp_path / "corpus" / "tags")
    move = TagMove(schema_version="1.5", folder="../other", manifest_sha256="0" * 64)
    (tmp_path / "corpus" / "tags" / "latest.000001.json").write_bytes(snapshot.to_json(move))
    assert main(["verify", f"{tmp_path}/corpus@latest"]) == 1
    assert "'../other', which is not a folder beside tags" in capsys.readouterr().err
    assert main(["verify", f"{tmp_path}/corpus@../other"]) == 1
    assert main(["tag", str(tmp_path), "../x"]) == 2
    assert main(["tags", f"{tmp_path}/none"]) == 0
    assert not (tmp_path / "none").exists()


def test_without_hard_links_a_tag_is_created_all_the_same(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    storage.create(str(tmp_path / "a"), b"1")
    with pytest.raises(FileExistsError):
        storage.create(str(tmp_path / "a"), b"2")
    assert (tmp_path / "a").read_bytes() == b"1" and os.listdir(tmp_path) == ["a"]


def test_the_commands(tmp_path, make_clip, write_snapshot, capsys):
    old, at = tmp_path / "1.0.0", tmp_path / "a@b"
    write_snapshot(old, [make_clip("one"), make_clip("two")], shards=1)
    write_snapshot(at, [make_clip("one")], shards=1)
    assert main(["tag", str(old), "latest"]) == 0
    assert main(["verify", str(at), "--workers", "1"]) == 0  # a folder's own name
    assert main(["verify", f"{tmp_path}@latest", "--workers", "1"]) == 0
    exported = ["export", f"{tmp_path}@latest", str(at), "--format", "parquet", "--split", "train"]
    assert main([*exported, "--split", "test", "--out", str(tmp_path / "parquet")]) == 0
    (tmp_path / "gone.txt").write_text("two\n")
    words = ["remove", f"{tmp_path}@latest", "--videos", str(tmp_path / "gone.txt")]
    out = tmp_path / "2.0.0"
    assert main([*words, "--out", str(out), "--tag", "latest", "--workers", "1"]) == 0
    assert main(["tag", f"{tmp_path}@latest", "stable"]) == 0
    capsys.readouterr()
    assert main(["tags", str(tmp_path)]) == 0
    listed = [line.split("\t")[:3] for line in capsys.readouterr().out.splitlines()]
    assert listed == [["latest", "2.0.0", "2.0.0"], ["stable", "2.0.0", "2.0.0"]]
    words[1] = str(old)  # from an earlier version than the tag's
    assert main([*words, "--out", str(tmp_path / "3.0.0"), "--tag", "latest"]) == 1
    assert "start from '2.0.0'" in capsys.readouterr().err
    assert not (tmp_path / "3.0.0").exists()
    assert main(["tag", str(tmp_path), "stable", "--delete"]) == 0
    assert main(["diff", str(old), f"{tmp_path}@stable"]) == 1
    capsys.readouterr()
    assert main(["tags", str(tmp_path), "stable"]) == 0
    assert [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()] == [
        "2.0.0",
        "deleted",
    ]
    made = json.loads((tmp_path / "tags" / "latest.000002.json").read_text())
    assert made["folder"] == "2.0.0" and made["schema_version"] == "1.5"
