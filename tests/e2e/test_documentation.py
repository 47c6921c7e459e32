"""The documentation's links, files and commands; README and tutorials run as printed."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from pipelines.cli.arguments import parsers
from tests.docs import blocks
from trainer.cli.main import _parser

ROOT = blocks.ROOT
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *blocks.pages(),
]
# The pages whose shell blocks run in CI, by a test each.
RUN = [
    ROOT / "README.md",
    *(DOCS / "tutorials" / f"{n}.md" for n in ("tour", "own_clips", "fine_tune")),
]


def name_of(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def run_blocks(page: pathlib.Path, folder: pathlib.Path) -> int:
    found = blocks.of(page, "sh")
    scripts = pathlib.Path(sys.executable).parent
    for block in found:
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=folder,
            env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return len(found)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tour_runs_as_printed(tmp_path: pathlib.Path) -> None:
    assert run_blocks(DOCS / "tutorials" / "tour.md", tmp_path) == 5
    assert (tmp_path / "runs/test/manifest.json").exists()
    assert (tmp_path / "found.png").stat().st_size > 1000
    assert (tmp_path / "runs/figures/windows.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_own_clips_run_as_printed_and_their_python_too(tmp_path: pathlib.Path) -> None:
    page = DOCS / "tutorials" / "own_clips.md"
    assert run_blocks(page, tmp_path) == 6
    assert (tmp_path / "runs/mine/checkpoints/20").exists()
    assert (tmp_path / "found.png").stat().st_size > 1000
    (code,) = blocks.of(page, "python")
    code += "\nassert cosines.shape == (1, 2) and heat.ndim == 3\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fine_tuning_runs_as_printed(tmp_path: pathlib.Path) -> None:
    assert run_blocks(DOCS / "tutorials" / "fine_tune.md", tmp_path) == 5
    assert (tmp_path / "runs/split1.csv").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readme_runs_as_printed(tmp_path: pathlib.Path) -> None:
    assert run_blocks(ROOT / "README.md", tmp_path) == 1
    assert (tmp_path / "runs/first/checkpoints/20").exists()


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN], ids=name_of)
def test_a_page_whose_commands_do_not_run_says_why(page: pathlib.Path) -> None:
    if blocks.of(page, "sh") or blocks.of(page, "console"):
        assert "Not run in CI" in page.read_text(encoding="utf-8")


def commands(page: pathlib.Path) -> list[list[str]]:
    """The words of each command of the two programs, up to an operator of the shell."""
    found = []
    for block in [*blocks.of(page, "sh"), *blocks.of(page, "text")]:
        for line in block.replace("\\\n", " ").splitlines():
            start = re.match(r"\s*(?:until )?(svilm-(?:pipelines|train) .*)", line)
            if start:
                words = shlex.split(start[1].replace(";", " ; "), comments=True)
                ends = [i for i, word in enumerate(words) if word in ("|", "||", "&&", ";")]
                found.append(words[: ends[0]] if ends else words)
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_every_command_is_accepted(page: pathlib.Path) -> None:
    for program, *arguments in commands(page):
        if program == "svilm-train":
            _parser().parse_args(arguments)
        else:
            _, rest = parsers()[0].parse_known_args(arguments)
            assert not rest or "--runner" in rest, (arguments, rest)  # options of Beam


def test_the_readme_fits_on_three_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_or_file_is_dead(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    for link in links:
        assert (page.parent / link).exists(), link
    named = re.findall(
        r"`((?:pipelines|trainer|tests|deploy|benchmarks|protos|svilm|docs)/[\w./-]*)`", text
    )
    for name in named:
        # A how-to guide names the files that its reader adds, and `make docs` builds a folder.
        added = page.parent.name == "howto" and page.name.startswith("new_")
        assert (ROOT / name).exists() or added or name == "docs/build/html", name
