"""No command and no child process imports modules from the working folder."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(sys.executable).with_name("svilm-pipelines")
NAMES = (
    *("random", "queue", "json", "runpy", "struct", "socket", "typing", "tempfile", "pickle"),
    *("numpy", "grpc", "av", "PIL", "google", "apache_beam", "spacy", "sitecustomize", "ctypes"),
    *("multiprocessing", "signal", "pipelines", "protos", "usercustomize", "platform"),
)
TRAP = "open(__file__ + '.ran', 'w'); raise ImportError('of the working folder')\n"


@pytest.fixture
def trapped(tmp_path) -> pathlib.Path:
    """Return a folder with modules that have the names of installed ones."""
    folder = tmp_path / "work"
    for i, name in enumerate(NAMES):
        path = folder / name / "__init__.py" if i % 2 else folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TRAP)
    return folder


@pytest.fixture
def run(trapped):
    def run(*words) -> str:
        done = subprocess.run(
            [str(SCRIPT), *map(str, words)],
            cwd=trapped,
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert done.returncode == 0, done.stderr
        assert not [*trapped.rglob("*.ran")]
        return done.stdout

    return run


def test_the_trap_detects_imports(trapped):
    done = subprocess.run([sys.executable, "-c", "import random"], cwd=trapped, capture_output=True)
    assert done.returncode == 1
    assert (trapped / "random.py.ran").exists()


@pytest.mark.slow
def test_no_command_imports_from_it(run, tmp_path):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    run("corpus", corpus, "--train-clips", 24, "--test-clips", 12, "--workers", 2)
    rows = ("--annotations", corpus / "train" / "video_cc_public.csv")
    rows = ("videocc", *rows, "--videos", corpus / "train" / "videos")
    size = ("--frames", 4, "--short-side", 32)
    for decoder in ("pyav", "ffmpeg"):
        where = ("--out", out / decoder, "--decoder", decoder, "--shards", 2, "--workers", 2)
        assert "24 records" in run("build", *rows, *size, *where)
    snapshot = out / "pyav"
    run("estimate", *rows, *size, "--sample", 2)
    run("verify", snapshot, "--workers", 2)
    run("inspect", snapshot, "--pictures", out / "sheet.png")
    run("describe", snapshot, "--out", out / "card.html")
    run("diff", snapshot, snapshot)
    run("export", snapshot, "--out", out / "tar", "--format", "webdataset", "--workers", 2)


def test_no_child_of_either_stage_imports_from_it(trapped):
    for place, module in (("pipelines.processes", "pipelines.cli.main"), ("trainer", "trainer")):
        start = (
            f"import os, subprocess; from {place} import child_python; os.chdir({str(trapped)!r}); "
            "child_python.hide_working_folder(); "
            f"subprocess.run([*child_python.command({module!r}), '--help'], check=True); "
            "import sys; subprocess.run([sys.executable, '-c', 'import random'], check=True)"
        )
        done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "usage: svilm-" in done.stdout
        assert not [*trapped.rglob("*.ran")]
