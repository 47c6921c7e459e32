import io
import json
import math
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.runs.run_folder import RunError
from trainer.training import metric_writer
from trainer.training.metric_writer import Metrics


def write(run, start, steps):
    with Metrics(run, start=start, steps=100) as writer:
        for step in steps:
            writer.write(step, {"epoch": step // 50, "loss": 1 / step})


def test_a_line_a_logged_step(tmp_path, capsys):
    write(tmp_path, 0, [1, 50])
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["step"], record["epoch"], record["loss"]) for record in records] == [
        (1, 0, 1.0),
        (50, 1, 0.02),
    ]
    assert 0 <= records[0]["seconds"] <= records[1]["seconds"]
    # No terminal here: plain lines.
    printed = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in printed] == [["step", "1/100"], ["step", "50/100"]]
    assert not any("\x1b" in line or "\r" in line for line in printed)


def test_a_restart_reads_as_one_undisturbed_run(tmp_path):
    write(tmp_path, 0, [10, 20, 30, 40])
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 50, "lo')  # killed while writing
    seconds = metric_writer.read(tmp_path)[1]["seconds"]
    # TensorBoard reads files in the order of their names: the second, host, process, and number of
    # the process's writer, where "10" is before "9". Only here does a run restart so soon in one.
    time.sleep(1)
    write(tmp_path, 20, [30, 40, 50])
    records = metric_writer.read(tmp_path)
    assert [record["step"] for record in records] == [10, 20, 30, 40, 50]
    assert [record["loss"] for record in records] == [1 / step for step in (10, 20, 30, 40, 50)]
    assert records[2]["seconds"] >= seconds

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [10, 20, 30, 40, 50]
    assert events.Scalars("loss")[2].value == pytest.approx(1 / 30)


def test_a_restart_from_nothing_forgets_everything(tmp_path):
    write(tmp_path, 0, [10, 20])
    write(tmp_path, 0, [10])
    assert [record["step"] for record in metric_writer.read(tmp_path)] == [10]


def test_numbers_that_are_not_finite_stay_json(tmp_path):
    with Metrics(tmp_path, start=0, steps=1) as writer:
        writer.write(1, {"gradient_norm": math.inf})
    assert metric_writer.read(tmp_path)[0]["gradient_norm"] is None


def test_losses_are_kept_to_the_last_bit(tmp_path):
    loss = 0.1 + 2**-50
    with Metrics(tmp_path, start=0, steps=1) as writer:
        writer.write(1, {"loss": loss})
    assert metric_writer.read(tmp_path)[0]["loss"] == loss


def test_a_terminal_gets_a_row_before_anything_is_logged(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Metrics(tmp_path, start=0, steps=4) as writer:
        writer.progress(1)
    assert terminal.getvalue() == "\r\x1b[2Kpretrain step 1/4\n"


def test_a_line_without_its_seconds_is_damaged(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    with pytest.raises(RunError, match="line of step 1 has no 'seconds'"):
        Metrics(tmp_path, start=1, steps=2)
