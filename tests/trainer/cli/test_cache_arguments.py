import argparse
import os

import pytest

from trainer.cli import cache_arguments, main
from trainer.data import cache
from trainer.data.folder import open_folder
from trainer.data.snapshot import Snapshot


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("SVILM_CACHE", raising=False)
    monkeypatch.delenv("SVILM_CACHE_SIZE", raising=False)


def given(folder, size="1GB"):
    return argparse.Namespace(cache=folder and os.fspath(folder), cache_size=size)


def test_all_commands_that_read_snapshots_take_the_options(capsys):
    for command in cache_arguments.COMMANDS:
        with pytest.raises(SystemExit):
            main._parser().parse_args([command, "--help"])
        assert "--cache-size SIZE" in capsys.readouterr().out


def test_the_options_are_the_environment_of_one_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SVILM_CACHE", os.fspath(tmp_path / "other"))
    with cache_arguments.used(given(tmp_path / "cache")):
        opened = cache.from_environment()
        assert opened and opened.folder == os.fspath(tmp_path / "cache")
    assert os.environ["SVILM_CACHE"] == os.fspath(tmp_path / "other")
    assert "SVILM_CACHE_SIZE" not in os.environ


def test_reads_are_printed_at_the_end(write_snapshot, tmp_path, capsys):
    here = Snapshot.open(write_snapshot().folder)
    with cache_arguments.used(given(tmp_path / "cache")):
        opened = cache.from_environment()
        assert opened
        there = cache.CachedFolder(open_folder(here.folder), here.manifest, opened)
        snapshot = Snapshot(there, here.manifest, "")
        snapshot.read([0])
        snapshot.read([0])
    size = here.locate(0).length / 1e6
    line = capsys.readouterr().err
    assert line.startswith(f"cache: 1 reads ({size:.1f} MB) from {tmp_path / 'cache'}, 2 (")


def test_an_option_without_use_is_named(tmp_path, capsys):
    with cache_arguments.used(given(tmp_path / "cache")):
        pass
    assert "leave --cache out" in capsys.readouterr().err


@pytest.mark.parametrize(("folder", "size"), [("", "1GB"), ("there", None), ("there", "1 GiB")])
def test_half_a_cache_is_refused(folder, size, tmp_path):
    arguments = given(folder and tmp_path / folder, size)
    with pytest.raises(cache.CacheError), cache_arguments.used(arguments):
        pass


def test_a_command_ends_with_one_line(capsys):
    words = ["search", "a ring", "--run", "r", "--snapshot", "gs://clips/s"]
    assert main.main([*words, "--cache=/dev/null", "--cache-size=1GB"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("svilm-train: error: the cache's folder /dev/null cannot be written")
