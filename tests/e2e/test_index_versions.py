"""Indices of snapshots that grow by `append` and shrink by `remove`."""

import shutil

import pytest

from pipelines.cli.main import main as pipelines
from trainer.cli.main import main as trainer
from trainer.index.index import Index

FRAMES = ("--frames=4", "--short-side=32")


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Return the folders of a snapshot, of it with an append, and of that without a video."""
    folder = tmp_path_factory.mktemp("versions")
    corpus = folder / "corpus"
    assert pipelines(["corpus", str(corpus), "--train-clips=6", "--test-clips=6"]) == 0

    def source(split):
        of_split = corpus / split
        # Annotation files of one snapshot differ in their names.
        annotations = (of_split / "video_cc_public.csv").rename(of_split / f"{split}.csv")
        return [
            f"--annotations={annotations}",
            f"--videos={of_split / 'videos'}",
            "--workers=1",
            "--shards=2",
        ]

    built, grown, shrunk = (folder / name for name in ("built", "grown", "shrunk"))
    assert pipelines(["build", "videocc", *source("train"), f"--out={built}", *FRAMES]) == 0
    assert pipelines(["append", str(built), "videocc", *source("test"), f"--out={grown}"]) == 0
    taken_down = folder / "removed.txt"
    taken_down.write_text(f"{min((corpus / 'train/videos').iterdir()).stem}\n")
    argv = ["remove", str(grown), f"--videos={taken_down}", f"--out={shrunk}", "--workers=1"]
    assert pipelines(argv) == 0
    return built, grown, shrunk


def contents(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_an_index_follows_appends_and_removals(run, versions, tmp_path):
    """Each update equals an index made afresh, and has no trace of a removed video."""
    videos = []
    for snapshot in versions:
        argv = ["index", f"--run={run}", f"--snapshot={snapshot}", "--shard-clips=3"]
        for name in ("updated", "afresh"):
            assert trainer([*argv, f"--out={tmp_path / name}"]) == 0
        assert contents(tmp_path / "updated") == contents(tmp_path / "afresh")
        shutil.rmtree(tmp_path / "afresh")
        videos.append(set(Index.open(tmp_path / "updated").columns.videos))
    built, grown, shrunk = videos
    assert built < grown
    (removed,) = grown - shrunk
    assert removed in built
    assert removed.encode() not in b"".join(contents(tmp_path / "updated").values())
