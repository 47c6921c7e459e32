"""What a training run measures: to the terminal, metrics.jsonl, TensorBoard, Weights & Biases."""
# pyright: reportAttributeAccessIssue=false
# TensorBoard's generated messages come without types.

import json
import math
import os
import pathlib
import sys
import time
from types import TracebackType
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer import step_lines
from trainer.progress import Bar


class Metrics:
    """Writes a run's metrics; a context manager.

    After a restart both records go on as if the steps that were lost had never been measured:
    metrics.jsonl is cut back to the checkpoint, and TensorBoard is told to forget the rest.
    """

    def __init__(
        self,
        run: pathlib.Path,
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
        path = run / "metrics.jsonl"
        kept = step_lines.cut(path, start)
        self._seconds_before = kept[-1]["seconds"] if kept else 0.0
        self._lines = path.open("a")
        self._events = EventFileWriter(str(run / "tensorboard"))
        restarted = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._events.add_event(
            event_pb2.Event(step=start + 1, wall_time=time.time(), session_log=restarted)
        )
        self._bar = Bar(job, "steps", done=start, in_logs=False)
        self._began = time.monotonic()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.clear()
        self._lines.close()
        self._events.close()
        if self._record is not None:
            self._record.finish(exit_code=0 if error is None else 1)

    def progress(self, step: int) -> None:
        """Moves the bar, if there is a terminal."""
        self._bar.show(step, self._steps)

    def write(self, step: int, values: dict[str, int | float]) -> None:
        """Records the metrics of one step.

        Args:
          step: updates made, this one included.
          values: by name.
        """
        seconds = self._seconds_before + time.monotonic() - self._began
        record = {"step": step} | values | {"seconds": round(seconds, 3)}
        self._lines.write(json.dumps({key: _json(value) for key, value in record.items()}) + "\n")
        self._lines.flush()
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
        self._bar.clear()
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"step {step:,}/{self._steps:,}  {shown}", file=sys.stderr, flush=True)


def read(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The metrics of a run, a dictionary for each step that was logged.

    A line that a killed process left unfinished is left out. Numbers that were not finite are None.
    """
    return step_lines.read(pathlib.Path(run) / "metrics.jsonl")


def _json(value: int | float) -> int | float | None:
    return value if math.isfinite(value) else None
