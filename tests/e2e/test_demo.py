"""A tiny demo: every command of both stages, on real videos."""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import urllib.request

import pytest
from PIL import Image

DEMO = pathlib.Path(__file__).parents[2] / "benchmarks" / "demo.py"
SIZES = (
    "--train-clips=24",
    "--test-clips=12",
    "--train-steps=3",
    "--control-steps=2",
    "--workers=2",
)
RETRIEVAL = {"R@1", "R@5", "R@10", "MedR"}


def demo(out, toy):
    done = subprocess.run(
        [sys.executable, DEMO, f"--out={out}", *SIZES, *toy], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_serves_a_page(command):
    """Start the server on a free port, and request its page, a search, and its video."""
    with subprocess.Popen([*command, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            address = process.stdout.readline().removeprefix("serve: ").strip().rstrip("/")
            for path, wanted in (
                ("/", b"<html"),
                ("/api/search?text=a+red+ring", b'"video":true'),
            ):
                with urllib.request.urlopen(f"{address}{path}", timeout=120) as answer:
                    assert wanted in answer.read().replace(b": ", b":")
        finally:
            process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_and_resumes(toy, tmp_path, chromium):
    out = tmp_path / "demo"
    printed = demo(out, toy)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["clips"] == {"train": 24, "test": 12, "rejected": 0}
    assert metrics["step"] == 3
    assert metrics["zero_shot"]["n"] == 12
    for way in ("t2v", "v2t"):
        assert metrics["zero_shot"][way].keys() >= RETRIEVAL
    assert metrics["grounding"].keys() >= {"pointing_accuracy", "chance", "other_object"}
    # The corpus has two objects per clip, each a few per cent of the frame.
    assert metrics["grounding"]["objects"] == 24
    assert 0.005 < metrics["grounding"]["chance"] < 0.2
    times = metrics["temporal"]
    assert times["position_prior"] == pytest.approx(2 / 3)  # out of 6 windows
    for name in ("window_accuracy", "random_encoder", "no_temporal_loss"):
        assert 0 <= times[name] <= 1
    assert metrics["controls"].keys() == {"blank_frames", "single_frame"}
    assert metrics["controls"]["blank_frames"] == pytest.approx(100 / 12, rel=0.5)
    assert metrics["seconds"].keys() >= {"corpus", "build", "train", "evaluate", "index", "moments"}
    assert all(seconds > 0 for seconds in metrics["seconds"].values())

    with Image.open(out / "search.png") as sheet:
        assert sheet.width > 800 and sheet.height > 800
    page = (out / "report.html").read_text()
    assert len(page) < 5e6
    seen = chromium(out / "report.html")
    assert seen.errors == []
    assert len(seen.pictures) > 12 * 6
    assert min(seen.pictures) > 0

    commands = re.findall(r"^\[(.*)\] (svilm-\S+ \S+)", printed, re.MULTILINE)
    assert len(commands) == 14
    serve, search = map(shlex.split, printed.splitlines()[-2:])
    found = subprocess.run(search, capture_output=True, text=True, check=True).stdout
    assert len(found.splitlines()) == 5
    assert_serves_a_page(serve)
    before = (out / "metrics.json").read_bytes()
    again = demo(out, toy)
    assert again.count("done before") == 14
    assert (out / "metrics.json").read_bytes() == before


def test_a_failed_step_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, DEMO, f"--out={tmp_path}", "--train-clips=-1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "the step 'corpus' failed with exit status 2" in done.stderr
    assert not (tmp_path / "metrics.json").exists()
