"""The interface of a downstream task, which the task.py of each folder here implements.

A task may add a head to a pre-trained model. It trains by a loss of its own, in the training loop
of pre-training (finetuning.py). Its metrics and the benchmark's file formats are modules of
trainer/evaluation.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Float, Key, PyTree

from protos import contract
from protos.v1 import clip_pb2
from trainer.configs.config import Config
from trainer.configs.fields import AnyDataclass
from trainer.data.batches import Examples
from trainer.data.snapshot import Snapshot
from trainer.data.types import ExampleBatch, Progress
from trainer.errors import UserError
from trainer.runs.checkpoint import Loaded

# A task's configuration, a frozen dataclass of its own.
Settings = TypeVar("Settings", bound=AnyDataclass)


class Recipe(NamedTuple, Generic[Settings]):
    """The training settings of a task's preset."""

    config: Settings
    settings: tuple[str, ...]  # overrides of the run's configuration, applied after `COMMON`


# Settings of every fine-tuning. Others come from the recipe, the pre-trained run or the defaults
# (`configure` in finetuning.py). Cut-and-paste belongs to pre-training alone (METHOD, section 2).
# Sources: tables 8–10.
COMMON = (
    "cut_and_paste.enabled=false",
    "optimizer.name=sgd",
    "optimizer.momentum=0.9",
    "optimizer.warmup_share=0.1",
    "log_every=10",
    "checkpoint_every=200",
)


class TaskError(UserError, ValueError):
    """A mismatch between data, run and task."""


class Views(NamedTuple):
    """The views of a test video; a view is one crop of one clip."""

    clips: int = 1  # consecutive clips of T frames each
    crops: int = 1  # crops along the longer side
    boxes: str | None = None  # path of a detector's boxes; None uses the annotated boxes


@runtime_checkable
class Predictions(Protocol):
    """A model's predictions for a test set."""

    def figures(self) -> Mapping[str, Any]:
        """Compute the metrics against the snapshot's annotations."""
        ...

    def write(self, path: pathlib.Path) -> None:
        """Write the predictions in the file format that trainer/evaluation reads."""
        ...


@runtime_checkable
class Task(Protocol[Settings]):
    """A downstream task, implemented by a module."""

    NAME: str
    TEXTS: int  # texts encoded with each clip
    RECIPES: dict[str, Recipe[Settings]]  # recipes by the name that --preset takes

    @staticmethod
    def classes(clips: Sequence[clip_pb2.Clip], settings: Settings) -> list[str]:
        """Return the classes of the training set; an empty list if the task has no classes.

        Raises:
          TaskError: the training set lacks this task's annotations.
        """
        ...

    @staticmethod
    def examples(
        clips: Sequence[clip_pb2.Clip], classes: Sequence[str], settings: Settings
    ) -> Examples:
        """Return the examples of an epoch.

        Raises:
          TaskError: the training set lacks this task's annotations.
        """
        ...

    @staticmethod
    def init_head(key: Key[Array, ""], config: Config, settings: Settings, classes: int) -> PyTree:
        """Initialize the head's parameters; return {} if the task has no head."""
        ...

    @staticmethod
    def trained(settings: Settings) -> tuple[str, ...] | None:
        """Return the names of the trainable parameter groups; None trains all."""
        ...

    @staticmethod
    def encode(
        params: PyTree,
        batch: ExampleBatch,
        keys: Key[Array, " b"],
        *,
        config: Config,
        settings: Settings,
    ) -> PyTree:
        """Encode a device's examples; the leading axis of each leaf is the examples."""
        ...

    @staticmethod
    def losses(
        params: PyTree,
        encoded: PyTree,
        batch: ExampleBatch,
        keys: Key[Array, " b"],
        *,
        config: Config,
        settings: Settings,
    ) -> dict[str, Float[Array, " b"]]:
        """Return the "loss" of each example of a device, and other per-example values to log."""
        ...

    @staticmethod
    def predict(run: Loaded, snapshot: Snapshot, progress: Progress, views: Views) -> Predictions:
        """Return the predictions of a fine-tuned run for a test set.

        Raises:
          TaskError: the run or the snapshot does not fit this task.
          SnapshotError: a record is damaged, or the snapshot does not fit the model.
        """
        ...


def trained_on(
    snapshots: Sequence[Snapshot], clips: Sequence[clip_pb2.Clip]
) -> dict[str, list[str]]:
    """Return the data sets and videos that task.json bars the run from being tested on."""
    return {
        "datasets": sorted(
            {name for snapshot in snapshots for name in contract.datasets(snapshot.manifest)}
        ),
        "videos": sorted({clip.video_id for clip in clips}),
    }


def task_of(run: Loaded, name: str) -> dict[str, Any]:
    """Return a fine-tuned run's task.json.

    Raises:
      TaskError: the run is fine-tuned for another task, or only pre-trained.
    """
    if run.task is None or run.task["name"] != name:
        kind = f"fine-tuned for {run.task['name']}" if run.task else "only pre-trained"
        raise TaskError(f"the run is {kind}: train it with svilm-train finetune --task {name}")
    return run.task
