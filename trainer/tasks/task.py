"""The shape of a downstream task: what the task.py of each folder here has.

A task adds a head to a pre-trained model, or none, and trains it by a loss of its own, in the loop
of pre-training (finetuning.py). Its modules beside task.py are metrics.py, which is NumPy alone,
and files.py, the benchmark's files.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key, PyTree

from protos.v1 import clip_pb2
from trainer.configs.config import Config
from trainer.data.batches import Examples
from trainer.data.snapshot import Snapshot
from trainer.data.types import ExampleBatch, Progress
from trainer.runs.checkpoint import Loaded


class Recipe(NamedTuple):
    """How a task is trained: a preset."""

    config: Any  # the task's own, a frozen dataclass
    settings: tuple[str, ...]  # of the run's configuration, on top of `COMMON`


# Of every fine-tuning; what is not set is as the pre-trained run had it. Cut-and-paste is the
# pre-training's (METHOD, section 2). Sources: tables 8–10.
COMMON = (
    "cut_and_paste.enabled=false",
    "optimizer.name=sgd",
    "optimizer.momentum=0.9",
    "optimizer.warmup_share=0.1",
    "log_every=10",
    "checkpoint_every=200",
)


class TaskError(ValueError):
    """Data, run and task that do not go together."""


class Views(NamedTuple):
    """How a test video is looked at; a view is one clip and one crop of it."""

    clips: int = 1  # that follow one another, T frames each
    crops: int = 1  # along its longer side
    boxes: str | None = None  # a detector's file of the boxes to look at, where a task wants boxes


@runtime_checkable
class Predictions(Protocol):
    """What a model says of a test set."""

    def figures(self) -> Mapping[str, Any]:
        """Measured by the annotations of the snapshot."""
        ...

    def write(self, path: pathlib.Path) -> None:
        """In the form that files.py reads."""
        ...


@runtime_checkable
class Task(Protocol):
    """A downstream task; a module."""

    NAME: str
    TEXTS: int  # that are encoded with each clip
    RECIPES: dict[str, Recipe]  # by the name of --preset

    @staticmethod
    def classes(clips: Sequence[clip_pb2.Clip], settings: Any) -> list[str]:
        """The classes to tell apart, of the training set; none: the task has none.

        Raises:
          TaskError: the training set is not of this task.
        """
        ...

    @staticmethod
    def examples(clips: Sequence[clip_pb2.Clip], classes: Sequence[str], settings: Any) -> Examples:
        """What an epoch consists of.

        Raises:
          TaskError: the training set is not of this task.
        """
        ...

    @staticmethod
    def init_head(key: Key[Array, ""], config: Config, settings: Any, classes: int) -> PyTree:
        """A fresh head's parameters; {}: the task has none."""
        ...

    @staticmethod
    def trained(settings: Any) -> tuple[str, ...] | None:
        """The parts of the parameters that are trained; None: all, end to end."""
        ...

    @staticmethod
    def encode(
        params: PyTree,
        batch: ExampleBatch,
        keys: Key[Array, " b"],
        *,
        config: Config,
        settings: Any,
    ) -> PyTree:
        """What the encoders say of a device's examples; leaves have a leading axis of these."""
        ...

    @staticmethod
    def losses(
        params: PyTree,
        encoded: PyTree,
        batch: ExampleBatch,
        keys: Key[Array, " b"],
        *,
        config: Config,
        settings: Any,
    ) -> dict[str, Float[Array, " b"]]:
        """Head and loss of a device's examples: "loss", and what else is told of each."""
        ...

    @staticmethod
    def predict(run: Loaded, snapshot: Snapshot, progress: Progress, views: Views) -> Predictions:
        """What a fine-tuned run says of a test set.

        Raises:
          TaskError: run or snapshot are not of this task.
          SnapshotError: a record is damaged, or the snapshot does not suit the model.
        """
        ...


def trained_on(
    snapshots: Sequence[Snapshot], clips: Sequence[clip_pb2.Clip]
) -> dict[str, list[str]]:
    """What a run must not be tested on, as task.json has it."""
    return {
        "datasets": sorted({snapshot.manifest.dataset for snapshot in snapshots}),
        "videos": sorted({clip.video_id for clip in clips}),
    }


def task_of(run: Loaded, name: str) -> dict[str, Any]:
    """What a fine-tuned run is for, its task.json.

    Raises:
      TaskError: it is for another task, or none.
    """
    if run.task is None or run.task["name"] != name:
        kind = f"fine-tuned for {run.task['name']}" if run.task else "only pre-trained"
        raise TaskError(f"the run is {kind}: train it with svilm-train finetune --task {name}")
    return run.task
