"""The wheel, built from the source distribution, in fresh environments: per extra, per Python."""

import email.parser
import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from typing import NamedTuple

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = pathlib.Path(__file__).parents[2]
UV = pathlib.Path(sys.executable).with_name("uv")
HERE = "{}.{}".format(*sys.version_info)
OTHERS = [version for version in ("3.11", "3.12", "3.13") if version != HERE]
NEEDED = (
    *("LICENSE", "Makefile", "README.md", "buf.yaml", "constraints.txt", "models.txt"),
    *("pyproject.toml", "setup.py", ".ci/run", "benchmarks/demo.py", "deploy/jobset.sh"),
    *("docs/conf.py", "protos/v1/clip.proto", "protos/v1/released.txtpb", "tests/conftest.py"),
    *("tests/data/parity/bert/model.safetensors", "trainer/report/page.html"),
)
CORPUS = ("svilm-pipelines", "corpus", "shapes", "--train-clips=24", "--test-clips=12")
BUILD = (
    *("svilm-pipelines", "build", "videocc", "--videos", "shapes/test/videos"),
    *("--annotations", "shapes/test/video_cc_public.csv", "--frames=12", "--short-side=64"),
)
PRETRAIN = (
    *("svilm-train", "pretrain", "--preset", "tiny", "--snapshot", "snapshot", "--out", "run"),
    "--max-steps=2",
)
SEARCH = ("svilm-train", "search", "a red ring", "--run", "run", "--snapshot", "snapshot")
EMBED = (
    *("svilm-train", "embed", "--run", "run", "--videos", "shapes/test/videos"),
    *("--feature", "clip", "--out", "features"),
)
# Quick tests of what differs between versions of Python.
QUICK = (
    *("tests/protos/test_contract.py", "tests/protos/test_tfrecord.py"),
    *("tests/pipelines/decoding/sandbox/test_seccomp.py", "tests/pipelines/cli/test_arguments.py"),
    *("tests/trainer/cli/test_dashes.py", "tests/trainer/configs/test_settings.py"),
)
TOOLS = ("beartype", "hypothesis", "psutil", "pytest", "pytest-timeout")


class Built(NamedTuple):
    """The distributions of this repository."""

    source: pathlib.Path
    wheel: pathlib.Path


def generated(folder, names):
    """Return the names of what is no source in a folder of the repository."""
    patterns = ["__pycache__", "*.egg-info"]
    if pathlib.Path(folder) == ROOT:
        patterns += [".git", ".venv*", ".*cache", ".hypothesis", "build", "dist", "runs"]
    return [name for pattern in patterns for name in fnmatch.filter(names, pattern)]


def own_environment():
    """Return the variables for programs of another environment, which may write bytecode."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own.pop("VIRTUAL_ENV", None)
    return own


def run(*words, cwd, **variables):
    return subprocess.run(
        words, cwd=cwd, env=own_environment() | variables, capture_output=True, text=True
    )


class Environment(NamedTuple):
    """A virtual environment, whose commands run in a folder beside it."""

    folder: pathlib.Path

    def install(self, *words):
        python = self.folder / "bin" / "python"
        done = run(UV, "pip", "install", "--python", python, *words, cwd=ROOT)
        assert done.returncode == 0, done.stderr

    def run(self, program, *words):
        return run(self.folder / "bin" / program, *words, cwd=self.folder.parent)

    def succeed(self, program, *words):
        done = self.run(program, *words)
        assert done.returncode == 0, (program, words, done.stdout + done.stderr)
        return done.stdout

    def fail(self, program, *words):
        """Return the error of a command that an extra's absence prevents, its last line."""
        done = self.run(program, *words)
        assert done.returncode == 1, (program, words, done.stdout + done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        error = done.stderr.splitlines()[-1]
        assert error.startswith(f"{program}: error: "), error
        return error


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the distributions. The wheel's only source is the source distribution."""
    copy = tmp_path_factory.mktemp("sources") / "svilm"
    shutil.copytree(ROOT, copy, ignore=generated)
    out = tmp_path_factory.mktemp("distributions")
    done = run(UV, "build", "--quiet", "--out-dir", out, copy, cwd=out)
    assert done.returncode == 0, done.stderr
    (source,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Built(source, wheel)


@pytest.fixture(scope="module")
def create(built, tmp_path_factory):
    """Return create(python, extras, *more), which makes an environment with the wheel."""

    def create(python, extras, *more):
        environment = Environment(tmp_path_factory.mktemp("machine") / "environment")
        done = run(UV, "venv", "--quiet", "--python", python, environment.folder, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        wheel = f"svilm[{extras}] @ {built.wheel.as_uri()}"
        environment.install("--constraints", "constraints.txt", wheel, *more)
        if "pipelines" in extras:
            environment.install("--no-deps", "--require-hashes", "-r", "models.txt")
        return environment

    return create


@pytest.fixture(scope="module")
def snapshot(create):
    """Return the folder of a corpus and its snapshot, written with [pipelines] alone."""
    environment = create(sys.executable, "pipelines")
    environment.succeed(*CORPUS)
    environment.succeed(*BUILD, "--out=snapshot")
    assert "svilm[trainer]" in environment.fail(*PRETRAIN)
    assert not (environment.folder.parent / "run").exists()
    return environment.folder.parent


@pytest.fixture(scope="module")
def trained(create, snapshot, toy):
    """Return the environment with [trainer] alone that trained on the snapshot."""
    environment = create(sys.executable, "trainer")
    folder = environment.folder.parent
    shutil.copytree(snapshot / "snapshot", folder / "snapshot")
    environment.succeed(*PRETRAIN, *toy)
    return environment


def interpreter(version):
    """Return the path of a Python version on PATH, in pyenv or in uv; None if there is none."""
    pyenv = shutil.which("pyenv")
    listed = run(pyenv, "versions", "--bare", cwd=ROOT).stdout.split() if pyenv else []
    all_versions = {"PYENV_VERSION": ":".join(listed)} if listed else {}
    find = (UV, "python", "find", "--system", "--no-project", "--no-python-downloads", version)
    found = run(*find, cwd=ROOT, **all_versions)
    if found.returncode != 0:
        return None
    code = "import sys; print(sys.executable)"  # A shim of pyenv is no interpreter.
    return run(found.stdout.strip(), "-c", code, cwd=ROOT, **all_versions).stdout.strip()


def losses(folder):
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name.startswith("loss")}
        for line in lines
    ]


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "snapshot").iterdir()}


def test_the_source_distribution_has_what_the_makefile_needs(built):
    with tarfile.open(built.source) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert set(NEEDED) <= names
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_wheel_describes_itself(built):
    with zipfile.ZipFile(built.wheel) as packed:
        names = packed.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        described = email.parser.Parser().parsestr(packed.read(metadata).decode())
    assert set(described["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    classifiers = described.get_all("Classifier") or []
    for version in (HERE, *OTHERS):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert described["Project-URL"].startswith("Paper, https://")
    assert described["Description-Content-Type"] == "text/markdown"
    assert str(described.get_payload()).strip() == (ROOT / "README.md").read_text().strip()
    assert {
        *("protos/py.typed", "protos/v1/clip.proto", "protos/v1/clip_pb2.pyi"),
        *("pipelines/snapshots/card/page.html", "trainer/report/page.html"),
    } <= set(names)
    packages = {name.partition("/")[0] for name in names}
    assert packages == {"pipelines", "trainer", "protos", "svilm", metadata.partition("/")[0]}


def test_each_extra_alone_serves_its_stage_and_names_the_other(trained, snapshot):
    assert "a " in trained.succeed(*SEARCH)
    assert "svilm[pipelines]" in trained.fail(*CORPUS)
    folder = trained.folder.parent
    shutil.copytree(snapshot / "shapes", folder / "shapes", dirs_exist_ok=True)
    assert "svilm[pipelines]" in trained.fail(*BUILD, "--out=other")
    assert "svilm[pipelines]" in trained.fail(*EMBED)
    assert not (folder / "other").exists()


@pytest.mark.parametrize("version", OTHERS)
def test_another_python_gives_the_same_snapshot_and_losses(create, snapshot, trained, toy, version):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} was found neither on PATH, nor in pyenv, nor in uv")
    environment = create(python, "pipelines,trainer", *TOOLS)
    folder = environment.folder.parent
    environment.succeed(*CORPUS)
    environment.succeed(*BUILD, "--out=snapshot")
    assert files(folder) == files(snapshot)
    environment.succeed(*PRETRAIN, *toy)
    found = losses(folder)
    assert "loss" in found[-1] and found == losses(trained.folder.parent)
    environment.succeed(*SEARCH)
    environment.succeed(*EMBED)
    done = run(
        *(environment.folder / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *QUICK,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
