"""The figures of the documentation: drawn by code, current, and small."""

import subprocess
import sys

import pytest

from tests.docs import blocks

FIGURES = blocks.ROOT / "docs" / "figures"
NAMES = sorted(path.name for path in FIGURES.iterdir() if path.suffix in (".svg", ".png", ".gif"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    code = "import pathlib, sys, draw; draw.main(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, folder], cwd=FIGURES, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_a_figure_is_what_its_code_draws(drawn):
    assert sorted(path.name for path in drawn.iterdir()) == NAMES
    for name in NAMES:
        assert (drawn / name).read_bytes() == (FIGURES / name).read_bytes(), f"{name}: make docs"


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_small_and_shown(name):
    assert (FIGURES / name).stat().st_size < 300_000
    assert any(f"figures/{name})" in page.read_text("utf-8") for page in blocks.pages())
