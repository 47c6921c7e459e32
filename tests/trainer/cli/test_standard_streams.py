"""Results and exit codes do not depend on encodings, closed streams or broken pipes."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]
COMMANDS = [
    "pretrain",
    "finetune",
    "evaluate",
    "index",
    "search",
    "report",
    "figures",
    "export",
    "embed",
    "plan",
    "localise",
    "study",
]
UTF8 = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "", "PYTHONIOENCODING": ""}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


@pytest.fixture(scope="module")
def terminals(tmp_path_factory):
    """Settings of terminals and their encodings; a Latin-1 locale only where it can be made."""
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
    """Run a command in bash. `shell` redirects its streams."""
    script = f"{shell}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "trainer", *map(str, words)],
        cwd=ROOT,
        env={name: value for name, value in {**os.environ, **env}.items() if value},
        capture_output=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """A command without a model and with a non-ASCII question type."""
    folder = tmp_path_factory.mktemp("questions–")
    question = {"video_id": "a", "question": "übrigens, who runs?", "answer": "Bär", "id": 7}
    truth, given = folder / "truth.json", folder / "given.json"
    truth.write_text(json.dumps([question], ensure_ascii=False), encoding="utf-8")
    given.write_text(json.dumps([{"question_id": 7, "answer": "Bär"}]), encoding="utf-8")
    return ["evaluate", "--task=qa", f"--predictions={given}", f"--truth={truth}"]


def test_every_help_is_printed_on_every_terminal(terminals):
    # A command's help has the same characters on every terminal: one proves all commands.
    for name, (env, encoding) in terminals.items():
        for command in ("", *COMMANDS) if name == "ascii locale" else ("",):
            done = run(*command.split(), "--help", env=env)
            assert (done.returncode, done.stderr) == (0, b""), (name, command)
            assert "usage: svilm-train" in done.stdout.decode(encoding)


def test_figures_are_the_same_on_every_terminal(terminals, evaluate, tmp_path):
    usual = tmp_path / "usual.json"
    done = run(*evaluate, f"--out={usual}")
    assert done.returncode == 0, done.stderr.decode()
    assert "übrigens" in done.stdout.decode()
    for name, (env, encoding) in terminals.items():
        out = tmp_path / f"{name}–ü.json"
        done = run(*evaluate, f"--out={out}", env=env)
        assert done.returncode == 0, (name, done.stderr.decode(encoding))
        shown = "übrigens" if encoding == "latin-1" else r"\xfcbrigens"
        assert shown in done.stdout.decode(encoding)
        assert out.read_bytes() == usual.read_bytes()


@pytest.mark.parametrize(
    "closed",
    [
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("<&-", ">&-", "2>&-")),
        "<&- >&- 2>&-",
        "2>/dev/full",
    ],
)
def test_closed_streams_change_nothing(evaluate, tmp_path, closed):
    done = run(*evaluate, f"--out={tmp_path / 'out.json'}", shell=f'"$@" {closed}')
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["accuracy"] == 100
    failed = run("evaluate", "--task=qa", shell=f'"$@" {closed}')
    assert (failed.returncode, failed.stdout) == (2, b"")


def test_a_reader_that_exits_ends_no_command(evaluate):
    for words in (["--help"], ["pretrain", "--help"], evaluate):
        done = run(*words, shell='"$@" | true')
        assert (done.returncode, done.stderr) == (0, b""), words


def test_output_that_cannot_be_written_is_an_error(evaluate):
    done = run(*evaluate, shell='"$@" >/dev/full')
    assert done.returncode == 1
    assert b"error: standard output: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr and done.stderr.count(b"\n") == 1
