"""The fuzzers: valid inputs pass, faults are stored, inputs are counted."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.fuzz import engine
from tests.fuzz.__main__ import FAMILIES
from tests.fuzz.engine import Record, Target

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_valid_inputs_show_no_fault(family):
    targets = engine.load(family, instrumented=False)
    assert targets
    for target in targets:
        for seed in target.seeds:
            target.check(seed)


def test_a_fault_is_stored_and_counted(tmp_path):
    def check(data):
        if data == b"bad":
            raise KeyError("x")

    target = Target("some reader", [b"good"], check, lambda data, draw: data)
    record = Record(tmp_path, [target])
    for data in (b"good", b"bad", b"bad"):
        record.check(target, data)
    record.write()
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["inputs"] == {"some reader": 3}
    ((name, count),) = counts["findings"].items()
    assert name.startswith("some reader: KeyError at tests/e2e/test_fuzz.py:")
    assert count == 2
    assert [path.read_bytes() for path in tmp_path.glob("*.input")] == [b"bad", b"bad"]


def test_a_coverage_guided_round_counts_its_inputs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "predictions", "--inputs=300", f"--out={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["inputs"] > 50, done.stderr
    assert len(counts["families"]["predictions"]["inputs"]) > 10
    assert done.returncode == 0, done.stderr
