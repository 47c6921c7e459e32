"""Terminal encodings, closed streams and broken pipes change no result or exit status."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMANDS = (
    *("build", "corpus", "describe", "diff", "estimate"),
    *("export", "inspect", "remove", "verify"),
)
NAME = "Bär–1"
UTF8 = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "", "PYTHONIOENCODING": ""}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


@pytest.fixture(scope="module")
def terminals(tmp_path_factory):
    """Yield environments of terminals by encoding, with a Latin-1 locale if it can be created."""
    known = {
        "latin-1 stream": ({"PYTHONIOENCODING": "iso8859-1"}, "latin-1"),
        "ascii stream": ({"PYTHONIOENCODING": "ascii"}, "ascii"),
        "ascii locale": (ASCII, "ascii"),
    }
    folder, name = tmp_path_factory.mktemp("locales"), "en_US.ISO-8859-1"
    if shutil.which("localedef"):
        words = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / name)]
        if subprocess.run(words, capture_output=True).returncode == 0:
            settings = {"LOCPATH": str(folder), "LC_ALL": name, "PYTHONUTF8": ""}
            known["latin-1 locale"] = settings | {"PYTHONIOENCODING": ""}, "latin-1"
    return known


def run(*words, env=UTF8, shell='"$@"'):
    """Run a command in bash, with its streams redirected as `shell` states."""
    return subprocess.run(
        ["bash", "-c", f"{shell}; exit ${{PIPESTATUS[0]}}", "bash", sys.executable, *words],
        cwd=ROOT,
        env={name: value for name, value in {**os.environ, **env}.items() if value},
        capture_output=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video):
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / f"{NAME}.mp4", seconds=2)
    row = f"{NAME},0,1,ein Bär → läuft\n"
    (folder / "rows.csv").write_text(f"video_id,start,end,caption\n{row}", encoding="utf-8")
    (folder / "map.csv").write_text(f"video_id,path\nbear,{NAME}.mp4\n", encoding="utf-8")
    (folder / "rows.csv").write_text(
        "video,start,end,caption\nbear,0,1,ein Bär → läuft\n", encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def build(videos):
    def words(out):
        return [
            *("-m", "pipelines", "build", "generic", "--annotations", str(videos / "rows.csv")),
            *("--videos", str(videos), "--video-map", str(videos / "map.csv")),
            *("--frames", "2", "--short-side", "16", "--shards", "1", "--out", str(out)),
        ]

    return words


@pytest.fixture(scope="module")
def built(build, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "snapshot"
    done = run(*build(out))
    assert done.returncode == 0, done.stderr.decode()
    return out


def same(folder, other):
    return {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


def test_every_help_is_printed_on_every_terminal(terminals):
    # A command's help has the same characters on every terminal: one proves all commands.
    for name, (env, encoding) in terminals.items():
        for command in ("", *COMMANDS) if name == "ascii locale" else ("",):
            done = run("-m", "pipelines", *command.split(), "--help", env=env)
            assert (done.returncode, done.stderr) == (0, b""), (name, command)
            assert "usage: svilm-pipelines" in done.stdout.decode(encoding)


def test_a_build_is_the_same_on_every_terminal(terminals, build, built, tmp_path):
    for name, (env, encoding) in terminals.items():
        out = tmp_path / name.replace(" ", "-")
        done = run(*build(out), env=env)
        assert done.returncode == 0, (name, done.stderr.decode(encoding))
        assert f"-> {out}" in done.stdout.decode(encoding)
        assert same(out, built), name
        shown = run("-m", "pipelines", "inspect", str(out), env=env)
        assert shown.returncode == 0, (name, shown.stderr.decode(encoding))
        caption = "ein Bär" if encoding == "latin-1" else r"ein B\xe4r"
        assert f"{caption} -> l" in shown.stdout.decode(encoding)


@pytest.mark.parametrize(
    "closed",
    [
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("<&-", ">&-", "2>&-")),
        "<&- >&- 2>&-",
        "2>/dev/full",
    ],
)
def test_closed_streams_change_nothing(build, built, tmp_path, closed):
    out = tmp_path / "out"
    done = run(*build(out), shell=f'"$@" {closed}')
    assert done.returncode == 0, done.stderr.decode()
    assert same(out, built)
    assert b"Traceback" not in done.stderr + done.stdout
    for words in (["verify", out], ["inspect", out], ["export", out, "--out", tmp_path / "ex"]):
        done = run("-m", "pipelines", *map(str, words), shell=f'"$@" {closed}')
        assert done.returncode == 0, done.stderr.decode()
    missing = run("-m", "pipelines", "verify", str(tmp_path), shell=f'"$@" {closed}')
    assert missing.returncode == 1
    assert missing.stdout == b""


def test_a_broken_pipe_does_not_end_a_command(build, built, tmp_path):
    for words in (["--help"], ["inspect", str(built)], ["verify", str(built)]):
        done = run("-m", "pipelines", *words, shell='"$@" | true')
        assert (done.returncode, done.stderr) == (0, b""), words
    out = tmp_path / "out"
    done = run(*build(out), shell='"$@" 2>&1 | true')
    assert (done.returncode, done.stderr) == (0, b"")
    assert same(out, built)


def test_unwritable_output_is_an_error(built):
    done = run("-m", "pipelines", "inspect", str(built), shell='"$@" >/dev/full')
    assert done.returncode == 1
    assert b"error: standard output: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr and done.stderr.count(b"\n") == 1


def test_workers_inherit_no_closed_stream(build, built, tmp_path):
    out = tmp_path / "out"
    done = run(*build(out), "--workers", "2", shell='"$@" 2>&- >&-')
    assert done.returncode == 0
    assert same(out, built)
