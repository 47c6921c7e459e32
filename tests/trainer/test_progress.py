"""A run's progress output: rows that fit a terminal, and a line before compilation."""

import dataclasses
import io
import json
import os
import pty
import re
import sys
import termios
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import progress
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.training import console_row, loop
from trainer.training.bad_step_report import BadSteps
from trainer.training.metric_writer import Metrics
from trainer.training.objective import Pretraining

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
    row = console_row.row(step, step + more, values, left)
    assert len(row) <= 100
    assert row.startswith(f"step {step:,}/{step + more:,}  loss ")
    assert ("left" in row) == (left is not None)
    assert "clips/s" in row and "gradient_norm" not in row


@given(columns=st.integers(1, 200), step=st.integers(1, 10**7))
def test_a_row_fits_any_number_of_columns(columns, step):
    row = console_row.row(step, 10**7, MANY, 3600.0, columns)
    assert len(row) <= columns
    if columns >= 70:  # of the longest row with the loss alone
        assert "loss 123.5" in row and row.endswith("1:00:00 left")


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


@pytest.mark.parametrize("columns", [20, 40, 80, 132])
def test_no_row_wraps_on_a_terminal(tmp_path, monkeypatch, columns):
    """Use stderr's terminal, because stdout may be a file."""
    shown, end = pty.openpty()
    termios.tcsetwinsize(end, (24, columns))
    with open(end, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Metrics(tmp_path, 0, 520) as metrics:
            metrics.write(300, MANY)
            metrics.progress(301)
        bar = progress.Bar("evaluate a snapshot of a long name", "clips")
        bar.show(1, 10**9)
        with progress.busy("pretrain: compiling the step, usually for less than a minute"):
            time.sleep(1.2)
        terminal.flush()
        text = os.read(shown, 100_000).decode()
    os.close(shown)
    rows = re.split(r"\r\x1b\[2K|\r?\n", text)
    assert any(row.startswith("pretrain step 300") for row in rows)
    assert max(map(len, rows)) <= columns - 1


def test_a_message_clears_the_row_first(tmp_path, monkeypatch, small_config):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    skips = dataclasses.replace(small_config, on_bad_step="skip")
    bad = {"bad_in_a_row": 1, "loss": float("nan"), "gradient_norm": 1.0}
    bad |= {"state_finite": True, "mean_loss": 1.0}
    with Metrics(tmp_path, 0, 9) as metrics:
        metrics.progress(3)
        BadSteps(tmp_path, skips, start=0, writes=True).check(3, bad, ["a"], None)
    message = "svilm-train: no update at step 3: the loss is nan\n"
    assert f"\x1b[2Kpretrain step 3/9\r\x1b[2K{message}" in terminal.getvalue()


class ReachedError(Exception):
    pass


class Stopping(Pretraining):
    """Stop before the first state is compiled."""

    def init_state(self, config, mesh):
        raise ReachedError


def test_stages_before_the_first_step_are_printed(write_snapshot, tmp_path, small_config, capsys):
    snapshot = Snapshot.open(write_snapshot(clips=12).folder)
    with pytest.raises(ReachedError):
        loop.train(Stopping(Mixture([snapshot])), small_config, tmp_path / "run")
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "pretrain: initializing the model …"
    assert any("9 steps" in line for line in said[:-1]), said


def test_a_long_operation_is_printed_at_once(capsys):
    with progress.busy("pretrain: compiling the step"):
        assert capsys.readouterr().err == "pretrain: compiling the step …\n"
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_seconds_of_a_long_operation(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.busy("compiling"):
        time.sleep(1.5)
    shown = terminal.getvalue()
    assert shown.startswith("\r\x1b[2Kcompiling …\r\x1b[2Kcompiling … 1 s")
    assert shown.endswith("\r\x1b[2K")
