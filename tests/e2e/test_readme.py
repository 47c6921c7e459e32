"""The README's tour, as printed: every command in order, in an empty folder."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

README = pathlib.Path(__file__).parents[2] / "README.md"


def commands(section: str) -> list[str]:
    text = README.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2]
    return re.findall(r"^```sh\n(.*?)^```$", text.partition("\n## ")[0], re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tour_runs_as_printed(tmp_path: pathlib.Path) -> None:
    tour = commands("A tour in the order of the data")
    assert len(tour) == 5
    scripts = pathlib.Path(sys.executable).parent
    for block in tour:
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs/test/manifest.json").exists()
    assert (tmp_path / "found.png").stat().st_size > 1000
    assert (tmp_path / "runs/figures/windows.png").stat().st_size > 1000
