import json
import pathlib
import random
import shutil

import numpy as np
import pytest

from tests.trainer.conftest import write_clips
from tests.trainer.index.conftest import contents
from trainer.configs.overrides import override
from trainer.data.snapshot import Snapshot
from trainer.finite import NonFiniteError
from trainer.index import embed, files, neighbors
from trainer.index.files import SearchIndexError
from trainer.index.index import Index
from trainer.inference import shards
from trainer.inference.encoder import Encoder, embed_clips
from trainer.inference.shards import FeaturesError


def version(folder, clips, name="snapshot"):
    """Write a version of a snapshot with some clips."""
    return write_clips(folder / name, clips, frames=4, short_side=18, shards=2).folder


@pytest.fixture
def embedded(monkeypatch):
    """The ids of the clips that were embedded."""
    seen = []

    def counted(snapshot, encoder, progress, records, at_once):
        seen.extend(snapshot.clip_ids(records))
        return embed_clips(snapshot, encoder, progress, records, at_once)

    monkeypatch.setattr(embed, "embed_clips", counted)
    return seen


def test_an_index_has_the_vectors_and_texts_of_all_clips(built, run, first, second):
    index = Index.open(built)
    assert len(index) == 13
    assert index.about["videos"] == 5
    assert [one["dataset"] for one in index.about["snapshots"]] == ["test", "other"]
    encoder, row = Encoder(run.config, run.tokenizer, run.params), 0
    for number, written in enumerate((first, second)):
        _, expected = embed_clips(Snapshot.open(written.folder), encoder, lambda *_: None)
        for record, clip in enumerate(written.clips):
            np.testing.assert_allclose(index.clips([row])[0], expected.clip[record], atol=1e-3)
            np.testing.assert_allclose(index.groups(row), expected.groups[record], atol=1e-3)
            np.testing.assert_allclose(index.windows(row), expected.windows[record], atol=5e-3)
            text = index.columns.text(row)
            assert (text["clip_id"], text["caption"]) == (clip.clip_id, clip.caption)
            assert set(text["labels"]) == set(clip.labels)
            assert index.columns["end_us"][row] == clip.end_us
            assert index.columns["snapshot"][row] == number
            row += 1


def test_int8_vectors_are_close_to_those_of_the_model(build, built, first, second, tmp_path):
    assert build(tmp_path / "int8", first.folder, second.folder, dtype="int8")
    small, large = Index.open(tmp_path / "int8"), Index.open(built)
    rows = range(len(large))
    np.testing.assert_allclose(small.clips(rows), large.clips(rows), atol=0.01)
    np.testing.assert_allclose(small.windows(3), large.windows(3), atol=0.05)
    with pytest.raises(SearchIndexError, match="dtype"):
        build(tmp_path / "int8", first.folder, second.folder)


def test_vectors_do_not_depend_on_the_division_or_the_neighbors(build, built, first, second,
                                                                tmp_path):  # fmt: skip
    assert build(tmp_path / "one", first.folder, second.folder, shard_clips=3)
    one, other = Index.open(tmp_path / "one"), Index.open(built)
    rows = range(len(other))
    assert (one.clips(rows) == other.clips(rows)).all()
    for row in rows:
        assert (one.windows(row) == other.windows(row)).all()
        assert (one.groups(row) == other.groups(row)).all()


def test_processes_share_the_shards_and_make_the_same_index(build, built, first, second, tmp_path):
    out = tmp_path / "out"
    both = first.folder, second.folder
    assert not build(out, *both, process=1, processes=2)
    assert not files.is_index(out)
    with pytest.raises(SearchIndexError, match="incomplete"):
        Index.open(out)
    assert build(out, *both, process=0, processes=2)
    assert contents(out) == contents(built)
    assert build(out, *both)
    assert contents(out) == contents(built)


def test_an_update_equals_an_index_made_afresh_and_embeds_only_what_changed(
    build, first, tmp_path, embedded
):
    clips = [type(clip).FromString(clip.SerializeToString()) for clip in first.clips]
    version(tmp_path, clips)
    out = tmp_path / "out"
    assert build(out, tmp_path / "snapshot")
    assert len(embedded) == 11
    embedded.clear()
    # The first video leaves, a caption changes, and a clip is added.
    clips[4].caption = "Look: a comet"
    added = type(clips[0]).FromString(clips[7].SerializeToString())
    added.clip_id, added.video_id = "video-00009_0_900000", "video-00009"
    shutil.rmtree(tmp_path / "snapshot")
    version(tmp_path, [*clips[3:], added])
    before = Index.open(out)
    assert build(out, tmp_path / "snapshot")
    assert sorted(embedded) == sorted([clips[4].clip_id, added.clip_id])
    assert build(tmp_path / "afresh", tmp_path / "snapshot")
    assert contents(out) == contents(tmp_path / "afresh")
    assert before.columns.row_of("video-00000_0_900000") == 0  # it still answers
    assert Index.open(out).columns.row_of("video-00000_0_900000") is None
    assert b"video-00000" not in b"".join(contents(out).values())


def test_a_damaged_shard_of_an_earlier_index_is_not_taken_over(
    build, first, second, tmp_path, embedded, capsys
):
    assert build(tmp_path / "out", first.folder)
    (shard, *_) = sorted(tmp_path.glob("out/data-*/features-*"))
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    embedded.clear()
    assert build(tmp_path / "out", first.folder, second.folder)
    assert f"{shard} is damaged" in capsys.readouterr().err
    assert len(embedded) == 4 + 2
    assert build(tmp_path / "afresh", first.folder, second.folder)
    assert contents(tmp_path / "out") == contents(tmp_path / "afresh")


class Killed(BaseException):
    """A stand-in for the end of the process: nothing may handle it."""


def test_kills_at_any_instant_leave_an_index_that_is_resumed(
    build, built, first, second, tmp_path, monkeypatch
):
    """Every rename of a file into its place may be the last one that happens."""
    both = first.folder, second.folder
    replace, steps = pathlib.Path.replace, []

    def ending(path, target):
        if len(steps) == allowed:
            raise Killed
        steps.append(target)
        return replace(path, target)

    monkeypatch.setattr(pathlib.Path, "replace", ending)
    # SIGKILL runs no clean-up: the claim stays.
    unlink = pathlib.Path.unlink
    monkeypatch.setattr(
        pathlib.Path, "unlink", lambda path, **o: path.name == files.CLAIM or unlink(path, **o)
    )
    allowed = None
    whole = tmp_path / "whole"
    assert build(whole, *both)
    total = len(steps)
    assert total >= 16
    draws = random.Random(0)
    out = tmp_path / "out"
    for start in (first.folder,), ():
        if start:
            steps.clear()
            assert build(out, *start)
            (out / files.CLAIM).rename(tmp_path / "claim")
        for _ in range(6):
            steps.clear()
            allowed = draws.randrange(0, 6)
            with pytest.raises(Killed):
                build(out, *both)
            if start and not files.is_index(out):
                pytest.fail("the earlier index is gone")
        allowed = None
        assert build(out, *both)
        left = contents(out)
        left.pop(files.CLAIM)
        assert left == contents(built)
        shutil.rmtree(out)


def test_another_run_is_refused(build, built, first, second, run, tmp_path):
    other = run._replace(step=7)
    for match, changed in (
        ("step", other),
        ("settings_sha256", run._replace(config=override(run.config, ["video.norm_eps=0.5"]))),
    ):
        before = contents(built)
        with pytest.raises(SearchIndexError, match=match):
            build(built, first.folder, run=changed)
        with pytest.raises(SearchIndexError, match=match):
            Index.open(built, changed)
        assert contents(built) == before


def test_the_same_snapshot_twice_is_refused(build, first, tmp_path):
    with pytest.raises(SearchIndexError, match="are the same"):
        build(tmp_path / "out", first.folder, first.folder)


def test_two_commands_do_not_mix_their_indices(build, first, second, tmp_path):
    out = tmp_path / "out"
    assert not build(out, first.folder, processes=2)
    with pytest.raises(FeaturesError, match="svilm-train index"):
        build(out, second.folder)
    assert build(out, first.folder)
    assert build(out, second.folder)
    assert len(Index.open(out)) == 2
    assert sorted(path.name for path in out.iterdir()) == [
        files.data_name(Index.open(out).about["made_from"]), files.MANIFEST
    ]  # fmt: skip


def test_vectors_that_are_not_finite_are_refused(build, first, tmp_path, monkeypatch):
    encode = Encoder.clips

    def spoilt(self, frames, names=()):
        clips = encode(self, frames, names)
        windows = clips.windows.copy()
        windows[1, 0, 0] = 1e6  # beyond float16
        return clips._replace(windows=windows)

    monkeypatch.setattr(Encoder, "clips", spoilt)
    with pytest.raises(NonFiniteError, match=r"windows as float16.*video-00000_1000000"):
        build(tmp_path / "out", first.folder)
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    assert not (tmp_path / "out" / files.CLAIM).exists()


def test_an_index_without_clips(build, tmp_path):
    assert build(tmp_path / "out", version(tmp_path, []))
    index = Index.open(tmp_path / "out")
    assert len(index) == 0
    assert index.search("a red ring") == []


def test_a_moved_snapshot_is_found_after_the_same_command(build, first, tmp_path):
    out = tmp_path / "out"
    assert build(out, first.folder)
    shutil.copytree(first.folder, tmp_path / "moved")
    assert build(out, tmp_path / "moved")
    index = Index.open(out)
    assert index.snapshot(0).folder == str(tmp_path / "moved")
    (tmp_path / "moved" / "manifest.json").write_text(
        (first.folder / "manifest.json").read_text().replace("1.0.0", "2.0.0")
    )
    with pytest.raises(SearchIndexError, match="has changed"):
        Index.open(out).snapshot(0)


def test_damaged_files_are_refused(built, tmp_path):
    for name, damage in (
        ("clip.npy", lambda data: data[:-1]),
        ("start_us.npy", lambda data: data.replace(b"<i8", b"|O8")),
        ("record.npy", lambda data: data.replace(b"<i8", b"<u8")),
        ("text.npy", lambda data: data[:-200] + b"\0" * 200),
    ):
        copied = tmp_path / name
        shutil.copytree(built, copied)
        (path,) = copied.glob(f"data-*/{name}")
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(SearchIndexError, match=f"{name} is damaged"):
            Index.open(copied).columns.text(12)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "svilm-index/2"},
        {"data": "../elsewhere"},
        {"clips": "13"},
        {"files": {"../clip.npy": {"bytes": 1}}},
        {"snapshots": [{}]},
        {"search": {}},
    ],
)
def test_damaged_manifests_are_refused(built, tmp_path, change):
    shutil.copytree(built, tmp_path / "copied")
    manifest = tmp_path / "copied" / files.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(SearchIndexError):
        Index.open(tmp_path / "copied")


def test_a_large_index_without_faiss_is_refused_before_the_work(
    build, first, tmp_path, monkeypatch
):
    monkeypatch.setattr(neighbors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(neighbors.MissingPackageError, match="svilm\\[search\\]"):
        build(tmp_path / "out", first.folder, exact_below=11)
    assert not (tmp_path / "out").exists()


def test_a_large_index_is_searched_approximately_with_a_measured_recall(
    build, first, second, tmp_path
):
    folders = first.folder, second.folder
    for name in ("one", "other"):
        assert build(tmp_path / name, *folders, exact_below=13)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    search = Index.open(tmp_path / "one").about["search"]
    assert search["kind"] == "ivf"
    assert search["recall_at_10"] >= 0.95
    assert search["queries"] == len({clip.caption for clip in (*first.clips, *second.clips)})


def test_a_shard_is_written_once(build, built, first, second, tmp_path, monkeypatch):
    saved = []
    save = shards.safetensors_file.save
    monkeypatch.setattr(
        shards.safetensors_file, "save", lambda *given: (saved.append(given), save(*given))
    )
    assert build(tmp_path / "out", first.folder, second.folder)
    assert len(saved) == 4
    assert build(tmp_path / "out", first.folder, second.folder)
    assert len(saved) == 4
