"""Builds in a bucket have the same bytes as on a disk."""

import html
import threading
import time
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.decoding import video_file
from pipelines.planning.video_lookup import VideoLookup
from pipelines.snapshots import run_lock, verify
from pipelines.snapshots.snapshot import LOCK_NAME, shard_of
from pipelines.storage import storage, stores
from protos import contract

SMALL, LARGE, LAST = "small_video", "large_video", "last__video"
ROWS = [
    (SMALL, 0, 1_000_000, "A man rides a brown horse"),
    (SMALL, 1_000_000, 2_000_000, "The dog eats"),
    (LARGE, 0, 1_000_000, "a cat"),
    (LAST, 0, 1_000_000, "a bird"),
    ("no_video___", 0, 1_000_000, "nothing"),
]
OPTIONS = ("--frames", "4", "--short-side", "24", "--shards", "6")
LIMIT = 100_000  # bytes
LIMITED = ("--max-video-size", f"{LIMIT // 1000}kB")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_video):
    """Return the inputs on a disk."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "videos").mkdir()
    for name in (SMALL, LAST):
        make_video(folder / "videos" / f"{name}.mkv")
    small = (folder / "videos" / f"{SMALL}.mkv").read_bytes()
    assert len(small) < LIMIT
    (folder / "videos" / f"{LARGE}.webm").write_bytes(small + bytes(LIMIT))
    lines = [",".join(map(str, row)) for row in ROWS]
    (folder / "rows.csv").write_text("url,start,end,caption\n" + "\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def lab(any_lab):
    """A bucket of each store."""
    return any_lab


@pytest.fixture(scope="module")
def root(lab, inputs):
    """Return the same inputs in a bucket."""
    for path in inputs.rglob("*.*"):
        with storage.NewFile(f"{lab}/inputs/{path.relative_to(inputs)}") as file:
            file.write(path.read_bytes())
    return f"{lab}/inputs"


def arguments(inputs, out, *more) -> list[str]:
    where = ("--annotations", f"{inputs}/rows.csv", "--videos", f"{inputs}/videos", "--out", out)
    return [str(word) for word in ("build", "videocc", *where, *OPTIONS, *more)]


def contents(folder: str) -> dict[str, bytes]:
    return {name: storage.read(f"{folder}/{name}") for name in storage.names(folder)}


@pytest.fixture
def run(capsys):
    """Return run(…), which runs a command in this process, because imports take seconds."""
    hook = threading.excepthook

    def here(*words, status=0):
        assert main.main([str(word) for word in words]) == status
        return capsys.readouterr()

    yield here
    threading.excepthook = hook


@pytest.fixture(scope="module")
def killed(lab, root, begin):
    """Return the folder of a build that was killed after its first shard."""
    out = f"{lab}/out"
    build = begin(*arguments(root, out, *LIMITED))
    try:
        deadline = time.monotonic() + 240
        while not any(name.startswith("shard-") for name in storage.names(out)):
            assert build.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        build.kill()
    assert LOCK_NAME in storage.names(out)
    assert contract.MANIFEST_NAME not in storage.names(out)
    return out


@pytest.fixture
def built(killed, root, run, monkeypatch):
    """Return the same build, resumed after the lease expired."""
    monkeypatch.setattr(run_lock, "RENEW_S", 0.2)
    monkeypatch.setattr(run_lock, "EXPIRE_S", 1.0)
    if not storage.exists(f"{killed}/{contract.MANIFEST_NAME}"):
        done = run(*arguments(root, killed, *LIMITED))
        assert "build: 5 rows = 3 records + 2 rejects" in done.out
        waiting, *others = done.err.splitlines()
        assert waiting.startswith("waiting up to 1 s")
        assert all(line.startswith("build: ") for line in others), done.err
    return killed


def test_bucket_and_disk_have_equal_bytes(built, inputs, tmp_path, run):
    manifest = verify.read_manifest(built)
    assert dict(manifest.counts.rejects) == {"video_too_large": 1, "video_missing": 1}
    run(*arguments(inputs, tmp_path / "out"))
    disk, there = contents(str(tmp_path / "out")), contents(built)
    assert disk.keys() == there.keys()
    # One video exceeds the limit, which applies only to downloads.
    shard = contract.shard_name(shard_of(LARGE, 6), 6)
    differing = {name for name in disk if disk[name] != there[name]}
    files = {f"{shard}.{suffix}" for suffix in ("tfrecord", "index", "json")}
    assert differing == {contract.MANIFEST_NAME, *files}


@pytest.fixture
def requests(lab, monkeypatch):
    """Return the requested objects and folder pages, in order."""
    asked: list[str] = []
    store = stores.store(lab[:5])
    stat, page = store.stat, store.page

    def counted_stat(bucket, name):
        asked.append(name)
        return stat(bucket, name)

    def counted_page(bucket, prefix, *rest, **options):
        asked.append(f"{prefix}*")
        return page(bucket, prefix, *rest, **options)

    monkeypatch.setattr(store, "stat", counted_stat)
    monkeypatch.setattr(store, "page", counted_page)
    return asked


@pytest.mark.parametrize("videos", ["videos", "videos/{video_id}.{ext}"])
def test_listed_videos_give_the_same_bytes(built, root, lab, run, requests, videos):
    out = f"{lab}/listed/{len(videos)}"
    where = ("--annotations", f"{root}/rows.csv", "--videos", f"{root}/{videos}", "--out", out)
    run("build", "videocc", *where, *OPTIONS, *LIMITED)
    asked = [name for name in requests if name.startswith("inputs/videos/")]
    requests.clear()
    # Two videos are .mkv, tried second; one is .webm, tried third; one is missing.
    names = [name for name in asked if not name.endswith("*")]
    assert len(names) == 2 * 2 + 3 + 6
    run("build", "videocc", *where[:-1], f"{out}-again", *OPTIONS, *LIMITED, "--list-videos")
    assert contents(f"{out}-again") == contents(out) == contents(built)
    listed = [name for name in requests if name.startswith("inputs/videos/")]
    assert len(listed) == 2 and set(listed) == {"inputs/videos/*"}  # one checks that any exist


def test_every_command_reads_a_bucket(built, lab, tmp_path, run):
    assert "is sound: 5 rows = 3 records + 2 rejects" in run("verify", built, "--workers", 1).out
    run("describe", built, "--out", f"{lab}/cards/card.html")
    card = storage.read(f"{lab}/cards/card.html").decode()
    assert "A man rides a brown horse" in html.unescape(card).replace("<mark>", "").replace(
        "</mark>", ""
    )
    assert "a bird" in run("inspect", built, "--pictures", f"{lab}/cards/clips.png").out
    assert storage.read(f"{lab}/cards/clips.png").startswith(b"\x89PNG")

    (tmp_path / "gone.txt").write_text(f"{LAST}\n")
    newer = f"{lab}/newer"
    run("remove", built, "--videos", tmp_path / "gone.txt", "--out", newer, "--workers", 1)
    assert "is sound: 5 rows = 2 records" in run("verify", newer, "--workers", 1).out
    told = run("diff", built, newer).out
    assert "removed: 1" in told and "unchanged: 2 records" in told
    run("export", newer, "--out", f"{lab}/tars", "--workers", 1)
    kinds = {name.rpartition(".")[2] for name in storage.names(f"{lab}/tars")}
    assert kinds == {"tar", "parquet", "json"}
    assert not list(Path(tmp_path).glob("*.tar"))


def test_a_damaged_object_is_found(built, lab, run):
    whole = contents(built)
    name = max(whole, key=lambda name: len(whole[name]))
    for other, data in whole.items():
        with storage.NewFile(f"{lab}/damaged/{other}") as file:
            file.write(data[:-1] + bytes([data[-1] ^ 1]) if other == name else data)
    assert f"{name}: has sha256" in run("verify", f"{lab}/damaged", "--workers", 1, status=1).out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("verify", "{lab}/nothing"), "'{lab}/nothing' is not a snapshot"),
        (("verify", "{none}/a"), "'{none}/a' is not a folder"),
        (
            ("export", "{lab}/out", "--out", "{none}/a"),
            "{none}/a: no such object or bucket",
        ),
        (
            ("remove", "{lab}/out", "--videos", "{lab}/ids.txt", "--out", "{lab}/x"),
            "{lab}/ids.txt: no such object or bucket",
        ),
        (
            ("build", "videocc", "--annotations", "{lab}/no.csv", "--videos", "x", "--out", "y"),
            "--annotations '{lab}/no.csv': no such object or bucket",
        ),
        (
            arguments("{lab}/inputs", "{none}/out"),
            "cannot write to '{none}/out' (no such object or bucket)",
        ),
    ],
)
def test_failures_name_the_object_in_one_line(built, lab, run, words, told):
    names = {"lab": lab, "none": f"{lab[:5]}no-such-bucket"}
    errors = run(*(word.format(**names) for word in words), status=1).err.splitlines()
    assert told.format(**names) in errors[-1]
    assert all("Traceback" not in line for line in errors)


def test_a_second_build_of_one_folder_is_refused(root, lab, run, monkeypatch):
    monkeypatch.setattr(run_lock, "RENEW_S", 0.2)
    monkeypatch.setattr(run_lock, "EXPIRE_S", 2.0)
    out = f"{lab}/twice"
    with run_lock.held(out):
        errors = run(*arguments(root, out), status=1).err.splitlines()
        assert f"'{out}' (it holds {LOCK_NAME})" in errors[-1]
        assert storage.names(out) == [LOCK_NAME]


def test_only_the_video_folder_is_listed(root, lab):
    with storage.NewFile(f"{lab}/map.csv") as file:
        file.write(
            "video_id,path\n"
            f"inside,{SMALL}.mkv\nwhole,{root}/videos/{SMALL}.mkv\n"
            f"above,../videos/{SMALL}.mkv\nbeside,{root}/rows.csv\n".encode()
        )
    lookup = VideoLookup(f"{root}/videos", f"{lab}/map.csv")
    inside = lookup.find("inside")
    assert isinstance(inside, video_file.Video)
    assert lookup.find("whole") == inside
    for other in ("above", "beside"):
        found = lookup.find(other)
        assert isinstance(found, video_file.Failure) and found.reason == "video_outside_root"
