"""Writer of a run's metrics: to the terminal, metrics.jsonl, TensorBoard, Weights & Biases."""
# pyright: reportAttributeAccessIssue=false
# TensorBoard's generated messages come without types.

import contextlib
import math
import os
import pathlib
import sys
import tempfile
import time
from types import TracebackType
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer import progress
from trainer.data.folder import in_bucket
from trainer.runs.run_folder import RunError
from trainer.runs.run_lock import LostError
from trainer.runs.run_path import RunPath, run_path, upload
from trainer.training import console_row, jsonl_log

# Minimum interval in seconds between writes to a bucket, which are of whole files.
_SECONDS_BETWEEN_UPLOADS = 30.0
_SHOWN_EVERY_S = 0.2  # minimum interval between updates of the terminal


class Metrics:
    """Context manager that writes a run's metrics.

    After a restart both records continue as if the lost steps had never been measured.
    metrics.jsonl is truncated to the checkpoint, and TensorBoard gets a marker to discard the rest.

    Objects in a bucket cannot be appended to. There both files are rewritten at most every 30
    seconds, before each checkpoint and at the end.
    """

    def __init__(
        self,
        run: RunPath,
        start: int,
        steps: int,
        record: Any = None,
        job: str = "pretrain",
    ) -> None:
        """Continue a run's record, or begin it.

        Args:
          run: the run's folder.
          start: number of updates so far.
          steps: number of steps of the whole run.
          record: the record in Weights & Biases (weights_and_biases.py), or None.
          job: the command's name, shown beside the bar.
        """
        # The events' writer imports TensorFlow itself, without the settings of this module.
        import trainer.data.cpu_tensorflow  # noqa: F401

        self._steps, self._record = steps, record
        self._lines = jsonl_log.Lines(run / "metrics.jsonl", start)
        kept = self._lines.kept
        before = kept[-1].get("seconds") if kept else 0.0
        if not isinstance(before, int | float):
            raise RunError(
                f"{run / 'metrics.jsonl'}: the line of step {kept[-1]['step']} has no 'seconds': "
                "remove that line"
            )
        self._seconds_before = before
        self._tensorboard = run / "tensorboard"
        self._local = tempfile.TemporaryDirectory(prefix="svilm-") if in_bucket(run) else None
        events = self._local.name if self._local else str(self._tensorboard)
        self._events = EventFileWriter(events)
        self._flushed = time.monotonic()
        restarted = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._events.add_event(
            event_pb2.Event(step=start + 1, wall_time=time.time(), session_log=restarted)
        )
        self._terminal = sys.stderr.isatty()
        self._job = job
        self._values: dict[str, int | float] = {}  # metrics of the last logged step
        self._first: tuple[int, float] | None = None  # a step, and its time in seconds
        self._last_shown = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._terminal and self._last_shown:
            print(file=sys.stderr)  # the row stays
        with contextlib.ExitStack() as cleanup:
            if self._local:
                cleanup.enter_context(self._local)
            cleanup.callback(self._events.close)
            # This must not hide an earlier error, nor overwrite the files of another command.
            if not isinstance(error, LostError):
                with contextlib.suppress(OSError) if error else contextlib.nullcontext():
                    self.flush()
        if self._record is not None:
            self._record.finish(exit_code=0 if error is None else 1)

    def progress(self, step: int) -> None:
        """Show the progress of the run, if there is a terminal."""
        if self._first is None:
            self._first = step, time.monotonic()
        if self._terminal and time.monotonic() - self._last_shown > _SHOWN_EVERY_S:
            self._show(step)

    def _show(self, step: int) -> None:
        """Show a row: it replaces the previous row on a terminal, and is a new line in a log."""
        left = None
        if self._first and step > self._first[0]:
            passed = time.monotonic() - self._first[1]
            left = passed / (step - self._first[0]) * (self._steps - step)
        if self._terminal:
            room = progress.columns() - len(f"{self._job} ")
            text = console_row.row(step, self._steps, self._values, left, room)
            progress.replace_row(f"{self._job} {text}")
        else:
            text = console_row.row(step, self._steps, self._values, left)
            progress.say(text)
        self._last_shown = time.monotonic()

    def flush(self) -> None:
        """Write to a bucket what is not written yet.

        Raises:
          OSError: the bucket does not accept a file.
        """
        if self._local:
            self._lines.flush()
            self._events.flush()
            upload(pathlib.Path(self._local.name), self._tensorboard)
        self._flushed = time.monotonic()

    def write(self, step: int, values: dict[str, int | float]) -> None:
        """Record the metrics of one step.

        Args:
          step: number of updates, this one included.
          values: the metrics, by name.
        """
        seconds = self._seconds_before + time.monotonic() - self._began
        record = {"step": step} | values | {"seconds": round(seconds, 3)}
        self._lines.append({key: _json(value) for key, value in record.items()})
        self._events.add_event(
            event_pb2.Event(
                step=step,
                wall_time=time.time(),
                summary=summary_pb2.Summary(
                    value=[
                        summary_pb2.Summary.Value(tag=name, simple_value=value)
                        for name, value in values.items()
                    ]
                ),
            )
        )
        if self._record is not None:
            self._record.log(record)
        self._values = values
        self._show(step)
        if self._terminal:  # Elsewhere the row is a line, which is logged.
            row = console_row.row(step, self._steps, values, None)
            progress.LOGGER.info("%s", row, extra=progress.PRINTED)
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_UPLOADS:
            try:
                self.flush()
            except OSError as error:  # retried later; the flush before a checkpoint raises it
                self._flushed = time.monotonic()
                progress.warn(f"svilm-train: {error.filename}: {error.strerror}")


def read(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the metrics of a run, a dictionary for each logged step.

    An unfinished line, which a killed process left, is ignored. Numbers that were not finite are
    None.
    """
    return jsonl_log.read(run_path(run) / "metrics.jsonl")


def _json(value: int | float) -> int | float | None:
    return value if math.isfinite(value) else None
