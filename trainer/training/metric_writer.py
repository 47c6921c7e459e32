"""What a training run measures: to the terminal, metrics.jsonl, TensorBoard, Weights & Biases."""
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
from trainer.runs.run_lock import LostError
from trainer.runs.run_path import RunPath, run_path, upload
from trainer.training import console_row, jsonl_log

# Between writes to a bucket, which are of whole files.
_SECONDS_BETWEEN_UPLOADS = 30.0
_SHOWN_EVERY_S = 0.2  # on a terminal


class Metrics:
    """Writes a run's metrics; a context manager.

    After a restart both records go on as if the steps that were lost had never been measured:
    metrics.jsonl is cut back to the checkpoint, and TensorBoard is told to forget the rest.

    In a bucket, whose objects cannot be appended to, both files are written anew at most every half
    a minute, before each checkpoint and at the end.
    """

    def __init__(
        self,
        run: RunPath,
        start: int,
        steps: int,
        record: Any = None,
        job: str = "pretrain",
    ) -> None:
        """Goes on with a run's record, or begins it.

        Args:
          run: its folder.
          start: updates made so far.
          steps: of the whole run.
          record: of Weights & Biases (weights_and_biases.py), or None.
          job: the command's name, beside the bar.
        """
        # The events' writer imports TensorFlow by itself, but not with these settings.
        import trainer.data.cpu_tensorflow  # noqa: F401

        self._steps, self._record = steps, record
        self._lines = jsonl_log.Lines(run / "metrics.jsonl", start)
        kept = self._lines.kept
        self._seconds_before = kept[-1]["seconds"] if kept else 0.0
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
        self._values: dict[str, int | float] = {}  # of the last logged step
        self._first: tuple[int, float] | None = None  # a step, and when it was made
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
            # An error that came first is not to be hidden, and another's files not overwritten.
            if not isinstance(error, LostError):
                with contextlib.suppress(OSError) if error else contextlib.nullcontext():
                    self.flush()
        if self._record is not None:
            self._record.finish(exit_code=0 if error is None else 1)

    def progress(self, step: int) -> None:
        """Show how far the run is, if there is a terminal."""
        if self._first is None:
            self._first = step, time.monotonic()
        if self._terminal and time.monotonic() - self._last_shown > _SHOWN_EVERY_S:
            self._show(step)

    def _show(self, step: int) -> None:
        """Show a row: on a terminal in place of the one before, in a log on a line of its own."""
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
            print(text, file=sys.stderr, flush=True)
        self._last_shown = time.monotonic()

    def flush(self) -> None:
        """Writes to a bucket what is not there yet.

        Raises:
          OSError: the bucket does not take it.
        """
        if self._local:
            self._lines.flush()
            self._events.flush()
            upload(pathlib.Path(self._local.name), self._tensorboard)
        self._flushed = time.monotonic()

    def write(self, step: int, values: dict[str, int | float]) -> None:
        """Records the metrics of one step.

        Args:
          step: updates made, this one included.
          values: by name.
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
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_UPLOADS:
            try:
                self.flush()
            except OSError as error:  # there is a next time; before a checkpoint it is an error
                self._flushed = time.monotonic()
                progress.say(f"svilm-train: {error.filename}: {error.strerror}")


def read(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The metrics of a run, a dictionary for each step that was logged.

    A line that a killed process left unfinished is left out. Numbers that were not finite are None.
    """
    return jsonl_log.read(run_path(run) / "metrics.jsonl")


def _json(value: int | float) -> int | float | None:
    return value if math.isfinite(value) else None
