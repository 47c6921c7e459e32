"""Records of snapshots in buckets are kept on the disk, whatever happens to the disk."""

import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from protos import tfrecord
from trainer.data import cache as cache_module
from trainer.data.batches import train_batches
from trainer.data.cache import Cache, CachedFolder, CacheError, Counts, from_environment
from trainer.data.folder import Folder, Part, open_folder
from trainer.data.mixture import Mixture
from trainer.data.snapshot import CorruptRecordError, Snapshot

EVERY = list(range(9))


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_snapshot_at):
    return write_snapshot_at(tmp_path_factory.mktemp("data") / "snapshot", clips=9, shards=3)


@pytest.fixture(scope="module")
def records(written):
    return [clip.SerializeToString() for clip in written.clips]


class Counted(Folder):
    """A folder on the disk with a bucket's name, which counts what is read from it."""

    def __init__(self, folder, path="gs://clips/train"):
        super().__init__(path)
        self._there = open_folder(folder)
        self.parts = []

    def sizes(self):
        return self._there.sizes()

    def read(self, name):
        return self._there.read(name)

    def read_parts(self, parts):
        self.parts += parts
        return self._there.read_parts(parts)


def far(folder, cache, path="gs://clips/train"):
    """Return a snapshot that is read through the cache, and its folder behind the cache."""
    here = Snapshot.open(folder)
    behind = Counted(folder, path)
    through = CachedFolder(behind, here.manifest, cache)
    return Snapshot(through, here.manifest, here.manifest_sha256), behind


def test_a_record_is_fetched_once_for_all_processes_and_runs(written, records, tmp_path):
    cache = Cache(tmp_path, 10**9)
    snapshot, bucket = far(written.folder, cache)
    assert snapshot.read([4, 0]) == [records[4], records[0]]
    assert len(bucket.parts) == 4  # two indices and two records: as without a cache
    assert snapshot.read([0, 8, 4]) == [records[0], records[8], records[4]]
    assert len(bucket.parts) == 6
    size = [snapshot.locate(record).length for record in (0, 4, 8)]
    assert cache.counts.misses == 6 and cache.counts.hit_bytes >= size[0] + size[1]
    later, bucket = far(written.folder, Cache(tmp_path, 10**9))
    assert later.read([8, 0, 4]) == [records[8], records[0], records[4]]
    assert bucket.parts == []


@pytest.fixture
def bucket(any_lab, written):
    from trainer.data.folder import _store

    store, path = _store(any_lab), f"{any_lab}/training"
    for file in written.folder.iterdir():
        store.pipe_file(f"{path}/{file.name}", file.read_bytes())
    yield path
    with contextlib.suppress(FileNotFoundError):
        store.rm(path, recursive=True)


def test_from_the_second_epoch_batches_need_no_bucket(
    bucket, written, small_config, tokenizer, tmp_path, monkeypatch
):
    from trainer.data.folder import _store

    monkeypatch.setenv("SVILM_CACHE", str(tmp_path))
    monkeypatch.setenv("SVILM_CACHE_SIZE", "1GB")
    there, here = Snapshot.open(bucket), Snapshot.open(written.folder)
    there.read(EVERY)
    _store(bucket).rm(bucket, recursive=True)
    pairs = zip(
        train_batches(Mixture([there]), tokenizer, small_config),
        train_batches(Mixture([here]), tokenizer, small_config),
        strict=True,
    )
    for left, right in pairs:
        assert left[2] == right[2]
        np.testing.assert_array_equal(left[1].frames, right[1].frames)
        np.testing.assert_array_equal(left[1].caption_ids, right[1].caption_ids)
    cache = from_environment()
    assert cache and cache.counts.hits == 6 * 4


def test_snapshots_on_a_disk_are_not_cached(written, tmp_path, monkeypatch):
    monkeypatch.setenv("SVILM_CACHE", str(tmp_path))
    monkeypatch.setenv("SVILM_CACHE_SIZE", "1GB")
    Snapshot.open(written.folder).read(EVERY)
    assert list(tmp_path.iterdir()) == []


def cached_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["flip", "cut", "zeros", "remove", "link"])
def test_damage_on_the_disk_is_mended_from_the_bucket(written, records, tmp_path, damage):
    cache = Cache(tmp_path / "cache", 10**9)
    far(written.folder, cache)[0].read(EVERY)
    for path in cached_files(tmp_path / "cache"):
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        elif damage == "cut":
            os.truncate(path, len(data) - 1)
        elif damage == "zeros":
            path.write_bytes(bytes(len(data)))
        else:
            path.unlink()
            if damage == "link":
                path.symlink_to(tmp_path / "victim")
                (tmp_path / "victim").write_bytes(b"untouched")
    snapshot, bucket = far(written.folder, Cache(tmp_path / "cache", 10**9))
    assert snapshot.read(EVERY) == records
    assert bucket.parts
    if damage == "link":
        assert (tmp_path / "victim").read_bytes() == b"untouched"
    else:
        again, bucket = far(written.folder, Cache(tmp_path / "cache", 10**9))
        assert again.read(EVERY) == records
        assert bucket.parts == []


def test_a_hole_is_no_record():
    for size in (0, 15, 16, 4096):
        with pytest.raises(tfrecord.CorruptRecordError):
            tfrecord.unframe(bytes(size))


def test_another_version_under_the_same_names_is_read_anew(
    written, write_snapshot, records, tmp_path
):
    cache = Cache(tmp_path / "cache", 10**9)
    far(written.folder, cache)[0].read(EVERY)

    def correct(clip, number):
        clip.caption = clip.caption.replace("Look", "Here")  # all offsets stay the same

    other = write_snapshot(clips=9, shards=3, annotate=correct)
    expected = [clip.SerializeToString() for clip in other.clips]
    assert expected != records
    assert far(other.folder, cache)[0].read(EVERY) == expected
    assert far(written.folder, cache)[0].read(EVERY) == records


def test_a_version_that_shares_shards_reads_them_from_the_cache_unless_its_bucket_is_another(
    written, tmp_path
):
    cache = Cache(tmp_path, 10**9)
    far(written.folder, cache)[0].read(EVERY)
    next_version, bucket = far(written.folder, cache, "gs://clips/train-2")
    next_version.read(EVERY)
    assert bucket.parts == []
    elsewhere, bucket = far(written.folder, cache, "gs://others/train")
    elsewhere.read(EVERY)
    assert len(bucket.parts) == 12


def test_a_record_that_is_corrupt_in_the_bucket_is_blamed_on_it_and_not_kept(
    written, tmp_path, records
):
    folder = tmp_path / "snapshot"
    shutil.copytree(written.folder, folder)
    where = Snapshot.open(folder).locate(4)
    shard = pathlib.Path(where.shard)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: where.offset + 20] + b"?" + whole[where.offset + 21 :])
    snapshot, _ = far(folder, Cache(tmp_path / "cache", 10**9))
    with pytest.raises(CorruptRecordError, match=rf"gs://.* offset {where.offset} "):
        snapshot.read([3, 4])
    shard.write_bytes(whole)
    assert snapshot.read([3, 4]) == [records[3], records[4]]


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "A" * 64])
def test_names_of_a_hostile_manifest_never_reach_the_disk(written, tmp_path, sha256):
    here = Snapshot.open(written.folder)
    for shard in here.manifest.shards:
        shard.data.sha256 = sha256
    cache = Cache(tmp_path, 10**9)
    folder = CachedFolder(Counted(written.folder), here.manifest, cache)
    part = Part(here.manifest.shards[0].data.name, 0, 100)
    assert folder.read_parts([part, part]) == Counted(written.folder).read_parts([part, part])
    assert cached_files(tmp_path) == []


# --- the limit ---


def frames(count, size=50_000):
    return [tfrecord.frame(bytes([number]) * size) for number in range(count)]


def allocated(folder):
    return sum(path.stat().st_blocks * 512 for path in cached_files(folder))


def key(number):
    return f"{number:064x}"


def age(folder, number, seconds):
    then = time.time() - seconds
    os.utime(folder / "svilm-cache-1" / key(number), (then, then))


def test_the_limit_holds_and_the_least_recently_used_shards_go(tmp_path):
    limit = 1_000_000
    cache = Cache(tmp_path, limit)
    for number, data in enumerate(frames(12)):
        cache.write(key(number), Part("any", 10**9 * number, len(data)), data)
        age(tmp_path, number, 7200 - 60 * number)
    assert allocated(tmp_path) <= limit
    age(tmp_path, 0, 900)  # it was used since
    data = frames(1, 400_000)[0]
    (tmp_path / "notes.txt").write_text("not of the cache")
    cache.write(key(99), Part("any", 0, len(data)), data)
    assert cache.read(key(99), Part("any", 0, len(data))) == data
    assert cache.read(key(0), Part("any", 0, 50_016)) == frames(1)[0]
    assert cache.read(key(1), Part("any", 10**9, 50_016)) == b""
    assert allocated(tmp_path) <= limit
    assert (tmp_path / "notes.txt").exists()


def test_shards_in_use_are_not_evicted_for_others(tmp_path):
    cache, every = Cache(tmp_path, 500_000), frames(20)
    for number, data in enumerate(every):
        cache.write(key(number), Part("any", 0, len(data)), data)
    kept = [cache.read(key(n), Part("any", 0, len(d))) == d for n, d in enumerate(every)]
    assert kept == [True] * sum(kept) + [False] * (20 - sum(kept))
    assert 7 <= sum(kept) <= 9


def test_a_snapshot_larger_than_the_limit_is_read_in_part_from_the_cache(
    write_snapshot, tmp_path, monkeypatch
):
    monkeypatch.setattr(cache_module, "_BLOCK", 1)  # these records are small
    written = write_snapshot(clips=60, shards=20, height=64, width=64)
    snapshot = Snapshot.open(written.folder)
    size = sum(shard.data.bytes for shard in snapshot.manifest.shards)
    cache = Cache(tmp_path / "cache", size)
    snapshot, bucket = far(written.folder, cache)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(4):
        bucket.parts.clear()
        snapshot.read(rng.permutation(60))
        shares.append(1 - sum("tfrecord" in part.name for part in bucket.parts) / 60)
    assert shares[0] == 0
    # Least recently used alone would give a share of 15 %.
    assert shares[1] == shares[2] == shares[3] > 0.3, shares


WRITER = """
import sys
from protos import tfrecord
from trainer.data.cache import Cache
from trainer.data.folder import Part

folder, limit, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache = Cache(folder, limit)
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + 400):
    data = tfrecord.frame(bytes([number % 256]) * 50_000)
    cache.write(f"{number % 7:064x}", Part("any", number * 53_248, len(data)), data)
print("done", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def writers(folder, limit, count):
    """Start processes that have opened the cache, and kill them at the end."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, folder, str(limit), str(number * 400)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for child in children:
            wait_for(child, "ready\n")
        for child in children:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def wait_for(child, line):
    assert child.stdout and child.stdout.readline() == line


def test_the_limit_holds_for_processes_that_write_at_once(tmp_path):
    limit, count = 8_000_000, 3
    with writers(tmp_path, limit, count) as children:
        for child in children:
            wait_for(child, "done\n")
    assert limit * 0.9 < allocated(tmp_path) <= limit * (1 + (count - 1) / 64)


def test_a_killed_writer_leaves_nothing_that_is_served_as_whole(tmp_path):
    with writers(tmp_path, 10**9, 1):
        while not cached_files(tmp_path):
            time.sleep(0.001)
    cache = Cache(tmp_path, 10**9)
    for number in range(400):
        expected = tfrecord.frame(bytes([number % 256]) * 50_000)
        found = cache.read(key(number % 7), Part("any", number * 53_248, len(expected)))
        assert found == expected or not is_frame(found)


def is_frame(data):
    try:
        return bool(tfrecord.unframe(data))
    except tfrecord.CorruptRecordError:
        return False


# --- folders that cannot be used, or not any more ---


def test_a_full_disk_ends_the_writing_with_one_line(written, records, tmp_path, capsys):
    """A file size limit of the process stands for the full disk: both make a write fail."""
    import resource

    cache = Cache(tmp_path, 10**9)
    snapshot, _ = far(written.folder, cache)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        for _ in range(2):
            assert snapshot.read(EVERY) == records
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().err.count("cannot be written") == 1
    assert snapshot.read(EVERY) == records


def test_a_disk_that_is_full_at_the_start_ends_no_run(written, records, tmp_path, capsys):
    full = pathlib.Path("/dev/full")
    with pytest.raises(OSError, match="No space") as raised:
        full.write_bytes(b"x")
    cache = Cache(tmp_path, 10**9)
    cache._stop_writing(raised.value)
    assert far(written.folder, cache)[0].read(EVERY) == records
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert cached_files(tmp_path) == []


def test_the_folder_may_be_deleted_at_any_time(written, records, tmp_path):
    cache = Cache(tmp_path / "cache", 10**9)
    snapshot, bucket = far(written.folder, cache)
    for _ in range(2):
        assert snapshot.read(EVERY) == records
        shutil.rmtree(tmp_path / "cache")
    assert snapshot.read(EVERY) == records
    asked = len(bucket.parts)
    assert snapshot.read(EVERY) == records
    assert len(bucket.parts) == asked == 3 + 3 * 9


def test_threads_may_read_and_evict_at_once(written, records, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_IN_USE_S", 0.0)
    monkeypatch.setattr(cache_module, "_RETRY_S", 0.0)
    cache = Cache(tmp_path, 60_000)
    snapshot, _ = far(written.folder, cache)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(9) for _ in range(60)]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for order, read in zip(orders, threads.map(snapshot.read, orders), strict=True):
            assert read == [records[record] for record in order]


@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/cache", "/proc/cache"])
def test_a_folder_that_cannot_be_written_is_refused(folder):
    with pytest.raises(CacheError, match=f"{folder} cannot be written"):
        Cache(folder, 10**9)


@pytest.mark.parametrize(
    ("folder", "size", "message"),
    [
        ("cache", "", "SVILM_CACHE_SIZE"),
        ("", "1GB", "SVILM_CACHE"),
        ("cache", "much", "'much' is not a size"),
        ("cache", "0GB", "'0GB' is not a size"),
        ("gs://clips/cache", "1GB", "gs://clips/cache is in a bucket"),
    ],
)
def test_settings_that_make_no_cache(monkeypatch, folder, size, message):
    monkeypatch.setenv("SVILM_CACHE", folder)
    monkeypatch.setenv("SVILM_CACHE_SIZE", size)
    with pytest.raises(CacheError, match=message):
        from_environment()


def test_no_settings_no_cache(monkeypatch):
    monkeypatch.delenv("SVILM_CACHE", raising=False)
    monkeypatch.delenv("SVILM_CACHE_SIZE", raising=False)
    assert from_environment() is None
    assert Counts() == (0, 0, 0, 0)
