"""The public Python API, also in folders with modules of the same names."""

import importlib.metadata
import pathlib
import subprocess
import sys

import pytest

import svilm

BIN = pathlib.Path(sys.executable).parent


def python(folder, code):
    """Run code in a process of its own, with a folder of a user first on its path."""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def test_every_name_is_there():
    for name in svilm.__all__:
        assert getattr(svilm, name).__name__ == name
        assert name in dir(svilm)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        svilm.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_it_imports_no_stage(tmp_path):
    code = (
        "import svilm, sys; print(sorted({'trainer', 'jax', 'numpy', 'protos'} & {*sys.modules}))"
    )
    assert python(tmp_path, code).stdout == "[]\n"


def test_a_snapshot_is_read_by_clip(tmp_path, write_snapshot_at):
    folder = write_snapshot_at(tmp_path / "snapshot", clips=3, height=18, width=24).folder
    snapshot = svilm.open_snapshot(folder)
    ids = [snapshot.clip(record).clip_id for record in range(len(snapshot))]
    assert len(ids) == 3 and ids == snapshot.clip_ids(range(3))
    assert snapshot.clip(0).height == 18
    with pytest.raises(IndexError):
        snapshot.clip(3)
    with pytest.raises(svilm.SnapshotError, match="nowhere"):
        svilm.open_snapshot(tmp_path / "nowhere")


def test_files_of_the_user_with_our_names(tmp_path):
    (tmp_path / "trainer.py").write_text("raise SystemExit('the user\\'s own')\n")
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "__init__.py").write_text("")
    done = python(tmp_path, "import svilm; print(svilm.Snapshot.__module__)")
    assert (done.returncode, done.stdout) == (0, "trainer.data.snapshot\n"), done.stderr


def test_a_module_that_is_loaded_already_is_named(tmp_path):
    (tmp_path / "trainer.py").write_text("")
    done = python(tmp_path, "import trainer, svilm; svilm.load")
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("ImportError: the module 'trainer' of ")
    assert str(tmp_path / "trainer.py") in said


def test_a_stage_that_is_loaded_by_another_path_is_ours(tmp_path):
    (tmp_path / "link").symlink_to(pathlib.Path(svilm.__file__).parents[2])
    code = f"import svilm, sys; sys.path.insert(0, {str(tmp_path / 'link')!r}); import trainer; "
    done = python(tmp_path, f"{code}print(svilm.Snapshot.__name__)")
    assert (done.returncode, done.stdout) == (0, "Snapshot\n"), done.stderr


def test_a_package_that_is_missing_is_named(tmp_path):
    block = "import sys; sys.modules['numpy'] = None; import svilm; svilm.load"
    done = python(tmp_path, block)
    assert done.stderr.strip().endswith(
        "ImportError: svilm.load requires the package numpy: pip install 'svilm[trainer]'"
    )


@pytest.mark.parametrize("program", ["svilm-pipelines", "svilm-train", "svilm"])
def test_the_version_is_printed(program, tmp_path):
    start = [sys.executable, "-m", "svilm"] if program == "svilm" else [BIN / program]
    done = subprocess.run([*start, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (
        0,
        f"{program} {importlib.metadata.version('svilm')}\n",
    )


def test_the_commands_are_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "svilm"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "svilm-pipelines" in done.stdout and "svilm-train" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "svilm", "train"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and "unknown argument 'train'" in done.stderr
