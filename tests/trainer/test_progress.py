"""What a run shows: rows that fit a terminal, and that its first step is compiled."""

import io
import json
import re
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from trainer import progress, step_row
from trainer.metrics import Metrics

MANY = {
    "loss": 123.456789, "epoch": 3, "temporal": 0.123456, "grounding": 12.34567,
    "contrast": 7.654321, "group_entropy": 0.9, "gradient_norm": 12345.678, "t2v_R@1": 12.345,
    "t2v_R@5": 45.678, "t2v_R@10": 67.89, "t2v_MedR": 6.0, "v2t_R@1": 11.1, "learning_rate": 1e-4,
    "clips_per_second": 12345.67, "input_wait": 0.001, "device_memory_gib": 12.3,
}  # fmt: skip


@given(
    step=st.integers(1, 10**7),
    more=st.integers(0, 10**7),
    left=st.none() | st.floats(0, 10**7),
    scale=st.floats(1e-9, 1e9),
)
def test_a_row_has_at_most_100_columns(step, more, left, scale):
    values = {name: value * scale for name, value in MANY.items()}
    row = step_row.row(step, step + more, values, left)
    assert len(row) <= 100
    assert row.startswith(f"step {step:,}/{step + more:,}  loss ")
    assert ("left" in row) == (left is not None)
    assert "clips/s" in row and "gradient_norm" not in row


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_has_a_line_a_logged_step_and_the_record_has_all(tmp_path, capsys):
    with Metrics(tmp_path, 0, 30) as metrics:
        for step in range(1, 31):
            metrics.progress(step)
            if step % 10 == 0:
                metrics.write(step, MANY)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["10/30", "20/30", "30/30"]
    assert all(len(line) <= 100 for line in lines)
    assert re.search(r"12\.?3?e?\+?0?4? ?.*clips/s  0:00:00 left$", lines[-1])
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record.keys() for record in records] == [{"step", *MANY, "seconds"}] * 3


def test_a_terminal_has_one_row_that_changes(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Metrics(tmp_path, 0, 3) as metrics:
        for step in (1, 2, 3):
            metrics.progress(step)
            metrics.write(step, MANY)
    shown = terminal.getvalue()
    assert shown.endswith("left\n") and shown.count("\n") == 1
    assert "\r\x1b[2Kpretrain step 3/3  loss 123.5  temporal 0.1235" in shown


def test_what_takes_long_is_said_at_once(capsys):
    with progress.busy("pretrain: compiling the step"):
        assert capsys.readouterr().err == "pretrain: compiling the step …\n"
    assert capsys.readouterr().err == ""


def test_a_terminal_sees_the_seconds_of_what_takes_long(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.busy("compiling"):
        time.sleep(1.5)
    shown = terminal.getvalue()
    assert shown.startswith("compiling …\r\x1b[2Kcompiling … 1 s")
    assert shown.endswith("\r\x1b[2K")
