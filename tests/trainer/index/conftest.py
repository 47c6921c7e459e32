"""Indices for the tests: toy runs, and snapshots whose clips have labels."""

import pathlib

import pytest

from trainer.data.snapshot import Snapshot
from trainer.index import build as building
from trainer.runs import checkpoint

LABELS = ("rises", "falls", 'l"<b>')


def annotate(clip, number):
    clip.labels.extend({LABELS[number % 3], LABELS[number % 2]})
    clip.end_us = clip.start_us + 100_000 * (1 + number)


@pytest.fixture(scope="session")
def run(untrained_run):
    return checkpoint.load(untrained_run)


@pytest.fixture(scope="session")
def first(tmp_path_factory, write_snapshot_at):
    """A snapshot of 11 clips."""
    folder = tmp_path_factory.mktemp("data") / "first"
    return write_snapshot_at(folder, clips=11, height=18, width=24, annotate=annotate)


@pytest.fixture(scope="session")
def second(tmp_path_factory, write_snapshot_at):
    """Another snapshot, of the data set "other", with one clip of the same video id."""
    folder = tmp_path_factory.mktemp("data") / "second"
    written = write_snapshot_at(folder, clips=2, height=18, width=24, annotate=annotate)
    written.edit_manifest(dataset="other")
    return written


@pytest.fixture(scope="session")
def build(run):
    """Builds an index: (out, folders, …) -> whether it is complete."""

    def built(out, *folders, run=run, shard_clips=4, **options):
        snapshots = [Snapshot.open(folder) for folder in folders]
        return building.build(
            run, snapshots, out, lambda *_: None, shard_clips=shard_clips, **options
        )

    return built


@pytest.fixture(scope="session")
def built(build, first, second, tmp_path_factory):
    """The folder of an index of `first` and `second`."""
    out = tmp_path_factory.mktemp("indices") / "both"
    assert build(out, first.folder, second.folder)
    return out


def contents(folder: pathlib.Path):
    """Return the bytes of all files under a folder, by their path in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
