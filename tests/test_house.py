"""What holds of the repository as a whole: its packages, their imports, their commands."""

import ast
import importlib
import os
import pathlib
import runpy
import shutil
import subprocess
import sys

import pytest
import setuptools

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("pipelines", "trainer", "protos", "svilm")
BIN = pathlib.Path(sys.executable).parent
# Files that exports contain and PyTorch imports: package data, and no package.
TORCH_CODE = ROOT / "trainer" / "weights" / "torch_code"

# Runs in a fresh interpreter: argv[1] names the packages that are not there, argv[2:] what to
# import without them.
IMPORT_WITHOUT = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

absent = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def modules_of(package):
    files = sorted({*(ROOT / package).rglob("*.py")} - {*TORCH_CODE.glob("*.py")})
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_of_these_common_names_are_ours(package):
    assert list(importlib.import_module(package).__path__) == [str(ROOT / package)]


def test_every_python_file_parses():
    files = [
        path
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] != "runs"
        and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]
    assert len(files) > 10
    for path in files:
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_import_contracts_hold():
    done = subprocess.run([BIN / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        # Importing TensorFlow imports JAX, so that sys.modules would prove nothing.
        ("pipelines", "jax,jaxlib,flax,optax,orbax,tensorflow,trainer"),
        ("trainer", "apache_beam,spacy,ffmpeg,imageio_ffmpeg,pipelines,torch,transformers"),
        ("protos", "jax,tensorflow,apache_beam,numpy,pipelines,trainer"),
    ],
)
def test_each_stage_imports_without_the_others_packages(package, absent):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT, absent, *modules_of(package)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["svilm-pipelines", "svilm-train"])
def test_help_of_each_command_starts_within_a_second(command, tmp_path):
    seconds = []
    for _ in range(3):  # of the processor, and the least counts: the machine may be busy
        before = os.times()
        done = subprocess.run(
            [BIN / command, "--help"], cwd=tmp_path, capture_output=True, text=True
        )
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {command}")
        assert done.stderr == ""
    assert min(seconds) < 1.0


def test_the_distribution_holds_the_three_packages_and_no_tests(monkeypatch):
    arguments = {}
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    assert {name.partition(".")[0] for name in arguments["packages"]} == set(PACKAGES)
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    folders.remove(TORCH_CODE)
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(
        arguments["packages"]
    )


def test_make_takes_the_newest_python_that_runs(tmp_path):
    """A shim of a version manager is on PATH and fails."""
    for program in ("sh", "make"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")

    def make(*words):
        return subprocess.run(
            ["make", "-f", ROOT / "Makefile", "--eval", 'python: ; @echo "$(PYTHON)"', *words],
            cwd=tmp_path,
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )

    for name in ("setup.py", "constraints.txt", "models.txt"):
        (tmp_path / name).touch()
    done = make("setup")
    assert done.returncode == 2 and "found no Python 3.11, 3.12 or 3.13" in done.stderr
    for version, status in (("3.13", 127), ("3.12", 0), ("3.11", 0)):
        program = tmp_path / f"python{version}"
        program.write_text(f"#!/bin/sh\nexit {status}\n")
        program.chmod(0o755)
    assert make("python").stdout == "python3.12\n"
    assert make("python", "PYTHON=other").stdout == "other\n"
    assert "'python3.13' is not Python" in make("setup", "PYTHON=python3.13").stderr


def test_jax_runs_under_the_suites_strict_settings():
    import jax
    import jax.numpy as jnp

    assert jax.default_backend() == "cpu"
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion"):
        jnp.add(jnp.ones(2), jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="jax_numpy_dtype_promotion=strict"):
        jnp.add(jnp.ones(2, jnp.int32), jnp.ones(2, jnp.float32))
