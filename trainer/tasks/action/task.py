"""Action recognition: a linear classifier on the video encoder, frozen or trained with it.

Source: section 4.3.3 and table 10. Each split of UCF101 or HMDB51 has its own model. The
probabilities of a test video are averaged over its clips and crops.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree, UInt8

from protos.v1 import clip_pb2
from trainer.configs.config import Config as RunConfig
from trainer.configs.fields import check_range
from trainer.data.annotations import read_annotations
from trainer.data.batches import Examples
from trainer.data.multi_view import view_batches
from trainer.data.snapshot import Snapshot
from trainer.data.types import ExampleBatch, Progress
from trainer.evaluation import action_accuracy, action_files
from trainer.finite import finite
from trainer.inference.encoder import Encoder
from trainer.method.models.svilm import VideoEmbedding
from trainer.method.models.transformer import at_least_float32, normal_init
from trainer.progress import warn
from trainer.runs.checkpoint import Loaded
from trainer.tasks.encoders import drop, video_in_training, video_in_use
from trainer.tasks.task import Recipe, TaskError, Views, task_of

NAME: str = "action"


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of action recognition; the paper does not specify them."""

    frozen: bool = False  # True trains the classifier only (linear probing)
    # Input of the classifier. "groups": the mean of the group tokens after their last norm, D wide,
    # which is the input of the projection into the joint space. "tokens": the mean of the video
    # tokens. "joint": f^v, E wide.
    feature: Literal["groups", "tokens", "joint"] = "groups"
    dropout: float = 0.0  # on the feature; VATT's probe has 0.9 after a bottleneck, others none

    def __post_init__(self) -> None:
        check_range("task", "dropout", self.dropout, 0.0, below=1.0)


_UCF = ("optimizer.learning_rate=0.1", "batch=64", "epochs=30")
_HMDB = ("optimizer.learning_rate=0.1", "batch=64", "epochs=60")
TEXTS: int = 0
RECIPES: dict[str, Recipe[Config]] = {
    "ucf101": Recipe(Config(), _UCF),
    "hmdb51": Recipe(Config(), _HMDB),
    # The paper does not give the probe's optimizer. These recipes use fine-tuning's.
    "ucf101-linear": Recipe(Config(frozen=True), _UCF),
    "hmdb51-linear": Recipe(Config(frozen=True), _HMDB),
    "shapes": Recipe(
        Config(),
        ("optimizer.name=muon", "optimizer.learning_rate=1e-3", "batch=64", "epochs=20"),
    ),
    "shapes-linear": Recipe(
        Config(frozen=True),
        ("optimizer.name=adamw", "optimizer.learning_rate=1e-2", "batch=64", "epochs=30"),
    ),
}


class Head(nn.Module):
    """A linear layer without batch normalization."""

    classes: int

    @nn.compact
    def __call__(self, feature: Float[Array, "b d"]) -> Float[Array, "b c"]:
        """Return the logits."""
        return nn.Dense(self.classes, kernel_init=normal_init, name="classifier")(feature)


def feature_of(video: VideoEmbedding, settings: Config) -> Float[Array, "b d"]:
    """Return the classifier's input, in float32."""
    if settings.feature == "joint":
        return video.clip
    if settings.feature == "groups":
        return jnp.mean(at_least_float32(video.features.groups), axis=1)
    return jnp.mean(at_least_float32(video.features.tokens), axis=(1, 2))


def classes(clips: Sequence[clip_pb2.Clip], settings: Config) -> list[str]:
    """Return the classes that occur, in alphabetical order."""
    return sorted({_label_of(clip) for clip in clips})


def examples(clips: Sequence[clip_pb2.Clip], classes: Sequence[str], settings: Config) -> Examples:
    """Return one example per clip, with the number of its class."""
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[_label_of(clip)] for clip in clips], np.int32)
    return Examples(np.arange(len(clips)), None, labels)


def _label_of(clip: clip_pb2.Clip) -> str:
    if len(clip.labels) != 1:
        raise TaskError(
            f"clip {clip.clip_id!r} has {len(clip.labels)} labels: action recognition takes "
            "snapshots of UCF101 or HMDB51, whose videos have one class each"
        )
    return clip.labels[0]


def init_head(key: Key[Array, ""], config: RunConfig, settings: Config, classes: int) -> PyTree:
    """Initialize the classifier near zero."""
    width = config.joint_width if settings.feature == "joint" else config.video.width
    return Head(classes).init(key, jnp.zeros((1, width)))["params"]


def trained(settings: Config) -> tuple[str, ...] | None:
    """Return the head's name if the encoder is frozen; None trains all."""
    return ("head",) if settings.frozen else None


def encode(
    params: PyTree,
    batch: ExampleBatch,
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    settings: Config,
) -> Float[Array, "b d"]:
    """Return the feature vector of each clip."""
    video = video_in_training(params, batch.frames, keys, config, frozen=settings.frozen)
    return feature_of(video, settings)


def losses(
    params: PyTree,
    encoded: Float[Array, "b d"],
    batch: ExampleBatch,
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    settings: Config,
) -> dict[str, Float[Array, " b"]]:
    """Return the cross-entropy and the accuracy of each clip."""
    kernel = params["head"]["classifier"]["kernel"]
    logits: Any = Head(kernel.shape[1]).apply(
        {"params": params["head"]}, drop(encoded, keys, settings.dropout)
    )
    assert batch.label is not None  # `examples` gives labels
    cost = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    right = jnp.argmax(logits, axis=-1) == batch.label
    return {"loss": cost, "accuracy": right.astype(jnp.float32)}


class Probabilities(NamedTuple):
    """The class probabilities of each test video, one row per view."""

    classes: list[str]
    views: dict[str, Float[np.ndarray, "views classes"]]  # probabilities by video
    labels: dict[str, str]  # true classes by video
    split: int

    def figures(self) -> Mapping[str, Any]:
        """Compute the accuracy on the snapshot's split."""
        predicted = {
            video: action_accuracy.best_class(rows, self.classes)
            for video, rows in self.views.items()
        }
        return action_accuracy.mean_of([action_files.figures(predicted, self.labels, self.split)])

    def write(self, path: pathlib.Path) -> None:
        """Write the CSV file of probabilities."""
        action_files.write(path, self.classes, self.views)


def predict(run: Loaded, snapshot: Snapshot, progress: Progress, views: Views) -> Probabilities:
    """Classify each view of each test video.

    Raises:
      TaskError: the run does not fit this task or has none of the videos' classes. Or a video has
        several records, or other than one class.
      NonFiniteError: a probability for a video is not finite; names the video.
      SnapshotError: a record is damaged, or has too few frames for the number of clips.
    """
    task = task_of(run, NAME)
    settings = Config(**task["config"])
    clips = read_annotations(snapshot)
    labels = {action_files.video_of(clip.video_id): _label_of(clip) for clip in clips}
    if len(labels) < len(clips):
        raise TaskError(f"{snapshot.folder} has two records of one video, but a class is per video")
    if not set(labels.values()) & set(task["classes"]):
        raise TaskError(
            f"no video of {snapshot.folder} has a class of the run, such as {task['classes'][0]}: "
            "use the benchmark that it was trained on"
        )
    if unknown := [name for name in labels if labels[name] not in task["classes"]]:
        warn(
            f"{len(unknown)} of {len(labels)} videos have a class that the run does not know, such "
            f"as {labels[unknown[0]]} of {unknown[0]}: they count as wrong"
        )
    rows: list[Float[np.ndarray, "b classes"]] = []
    config = Encoder(run.config, run.tokenizer, run.params).config  # for this machine's devices
    for frames, count in view_batches(
        snapshot, config, clips=views.clips, crops=views.crops, progress=progress
    ):
        rows.append(np.asarray(_classify(run.params, frames, config, settings))[:count])
    of_video = np.concatenate(rows).reshape(len(clips), views.clips * views.crops, -1)
    finite("class probabilities", of_video, [f"video {name}" for name in labels])
    by_video = dict(zip(labels, of_video, strict=True))
    return Probabilities(task["classes"], by_video, labels, _split_of(snapshot))


def _split_of(snapshot: Snapshot) -> int:
    """Return the number of a snapshot's split.

    For UCF101 it follows from the name of the list of videos. For HMDB51 it is the fold that the
    snapshot was built with. For any other snapshot it is 1.
    """
    for annotations in snapshot.manifest.annotations:
        if (number := action_files.split_of(annotations.name)) is not None:
            return number
    return snapshot.manifest.config.source.fold or 1


@partial(jax.jit, static_argnames=("config", "settings"))
def _classify(
    params: PyTree, frames: UInt8[Array, "b t h w 3"], config: RunConfig, settings: Config
) -> Float[Array, "b classes"]:
    feature = feature_of(video_in_use(params, frames, config), settings)
    kernel = params["head"]["classifier"]["kernel"]
    logits: Any = Head(kernel.shape[1]).apply({"params": params["head"]}, feature)
    return jax.nn.softmax(logits)
