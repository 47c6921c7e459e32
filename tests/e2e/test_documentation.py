"""Shell blocks of the README and the tour, run in order in an empty folder."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BUILT = (ROOT / "docs" / "build", ROOT / "docs" / "generated")  # by `make docs`
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(
        page
        for page in (ROOT / "docs").rglob("*.md")
        if not any(folder in page.parents for folder in BUILT)
    ),
]


def run_blocks(page: pathlib.Path, folder: pathlib.Path) -> int:
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    scripts = pathlib.Path(sys.executable).parent
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=folder,
            env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return len(blocks)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tour_runs_as_printed(tmp_path: pathlib.Path) -> None:
    assert run_blocks(ROOT / "docs" / "tour.md", tmp_path) == 5
    assert (tmp_path / "runs/test/manifest.json").exists()
    assert (tmp_path / "found.png").stat().st_size > 1000
    assert (tmp_path / "runs/figures/windows.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readme_runs_as_printed(tmp_path: pathlib.Path) -> None:
    assert run_blocks(ROOT / "README.md", tmp_path) == 1
    assert (tmp_path / "runs/first/checkpoints/20").exists()


def test_the_readme_fits_on_three_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_or_file_is_dead(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    for link in links:
        assert (page.parent / link).exists(), link
    named = re.findall(
        r"`((?:pipelines|trainer|tests|deploy|benchmarks|protos|svilm)/[\w./-]*)`", text
    )
    for name in named:
        assert (ROOT / name).exists(), name
