"""A snapshot in a bucket, gs:// or s3://, is the snapshot on the disk."""

import google_crc32c
import numpy as np
import pytest

from trainer.data.batches import train_batches
from trainer.data.folder import (
    Part,
    move_folder,
    object_checksums,
    open_folder,
    read_file,
)
from trainer.data.mixture import Mixture
from trainer.data.snapshot import CorruptRecordError, Snapshot, SnapshotError
from trainer.data.tokenizer import Tokenizer, VocabularyError


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_snapshot_at):
    return write_snapshot_at(tmp_path_factory.mktemp("data") / "snapshot", clips=9, shards=3)


@pytest.fixture(scope="module")
def put(any_lab):
    """Write files to a folder of the bucket: (name of the folder, {file: bytes}) -> its path."""
    from trainer.data.folder import _store

    def into(name, files):
        for file, data in files.items():
            _store(any_lab).pipe_file(f"{any_lab}/{name}/{file}", data)
        return f"{any_lab}/{name}"

    return into


@pytest.fixture(scope="module")
def files(written):
    return {path.name: path.read_bytes() for path in written.folder.iterdir()}


@pytest.fixture(scope="module")
def bucket(put, files):
    return put("data/snapshot", files)


def test_both_kinds_of_folder_answer_alike(bucket, written, files):
    parts = [Part("manifest.json", 1, 7), Part("shard-00002-of-00003.tfrecord", 0, 10**6)]
    for folder in (open_folder(f"{bucket}/"), open_folder(written.folder)):
        assert folder.sizes() == {name: len(data) for name, data in files.items()}
        assert folder.read("manifest.json") == files["manifest.json"]
        assert folder.read_parts(parts) == [files["manifest.json"][1:8], files[parts[1].name]]
        with pytest.raises(FileNotFoundError) as raised:
            folder.read("other")
        assert raised.value.filename == f"{folder.path}/other" and raised.value.strerror
        with pytest.raises(FileNotFoundError) as raised:
            folder.read_parts([parts[0], Part("other", 0, 9)])
        assert raised.value.filename == f"{folder.path}/other" and raised.value.strerror


def test_the_same_records_and_batches(bucket, written, small_config, tokenizer, put):
    there, here = Snapshot.open(bucket), Snapshot.open(written.folder)
    records = np.array([8, 0, 4, 4])
    assert there.read(records) == here.read(records)
    assert there.locate(8)[1:] == here.locate(8)[1:]
    assert there.locate(8).shard == f"{bucket}/shard-00002-of-00003.tfrecord"
    vocabulary = put("texts", {"vocab.txt": "".join(f"{p}\n" for p in tokenizer.pieces).encode()})
    far = Tokenizer.from_vocabulary(f"{vocabulary}/vocab.txt")
    assert far.pieces == tokenizer.pieces
    for left, right in zip(
        train_batches(Mixture([there]), far, small_config),
        train_batches(Mixture([here]), tokenizer, small_config),
        strict=True,
    ):
        assert left[2] == right[2]
        np.testing.assert_array_equal(left[1].frames, right[1].frames)


def test_a_corrupt_record_is_named(any_lab, put, files, written):
    name = "shard-00001-of-00003.tfrecord"
    where = Snapshot.open(written.folder).locate(4)
    data = bytearray(files[name])
    data[where.offset + 30] ^= 1
    snapshot = Snapshot.open(put("damaged", files | {name: bytes(data)}))
    expected = f"{any_lab}/damaged/{name} is corrupt at offset {where.offset} .*{where.clip_id}"
    with pytest.raises(CorruptRecordError, match=expected):
        snapshot.read([3, 4])


def test_missing_files_are_named(any_lab, put, files, bucket):
    scheme = any_lab.partition("//")[0]
    with pytest.raises(SnapshotError, match=f"snapshot folder {any_lab}/nowhere does not exist"):
        Snapshot.open(f"{any_lab}/nowhere")
    with pytest.raises(SnapshotError, match=f"snapshot folder {scheme}//no-such-bucket/a does not"):
        Snapshot.open(f"{scheme}//no-such-bucket/a")
    some = {name: data for name, data in files.items() if name != "manifest.json"}
    with pytest.raises(SnapshotError, match=r"/half has no manifest\.json"):
        Snapshot.open(put("half", some))
    del some["shard-00001-of-00003.tfrecord"]
    manifest = {"manifest.json": files["manifest.json"]}
    with pytest.raises(SnapshotError, match=r"/less/shard-00001.*\.tfrecord is missing"):
        Snapshot.open(put("less", some | manifest))
    with pytest.raises(VocabularyError, match=f"{bucket}/vocab.txt cannot be read: no such object"):
        Tokenizer.from_vocabulary(f"{bucket}/vocab.txt")


def test_a_bucket_that_does_not_answer_is_an_oserror(monkeypatch, bucket):
    from trainer.data import folder

    class Refusing:
        def __init__(self, path):
            pass

        def cat_file(self, path):
            raise OSError("https://store/b\nForbidden: caller has no access")

    monkeypatch.setattr(folder, "_store", Refusing)
    with pytest.raises(OSError, match="caller has no access") as raised:
        read_file(f"{bucket}/manifest.json")
    assert raised.value.filename == f"{bucket}/manifest.json"


def test_objects_are_listed_with_the_checksums_that_their_store_keeps(lab):
    from trainer.data.folder import _store

    there = {"checksums/8/a": b"one", "checksums/8/b/c": b"", "checksums/88/a": b"other"}
    _store(lab).pipe({f"{lab}/{name}": data for name, data in there.items()})
    assert object_checksums(f"{lab}/checksums/8") == {
        "a": (3, f"{google_crc32c.value(b'one'):08x}"),
        "b/c": (0, "00000000"),
    }
    move_folder(f"{lab}/checksums/8", f"{lab}/checksums/9")
    assert object_checksums(f"{lab}/checksums/9").keys() == {"a", "b/c"}
    assert object_checksums(f"{lab}/checksums/8") == {}
