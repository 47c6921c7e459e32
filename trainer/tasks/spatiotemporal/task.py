"""Spatiotemporal localisation: classification of the actions in given boxes at a keyframe.

Source: the paper reports AVA v2.2 (25.00 on detected boxes, 30.15 on annotated ones) without
details. Head and recipe are SlowFast's, with the paper's schedule. Training crops squares from the
pictures and clips the boxes to them. A test uses whole pictures, as in AVA's protocol, with the
position embeddings interpolated to their patches.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, UInt8

from protos.v1 import clip_pb2
from trainer.configs.config import Config as RunConfig
from trainer.configs.fields import check_counts, check_range
from trainer.data.annotations import read_annotations
from trainer.data.batches import Examples
from trainer.data.boxes import Boxes
from trainer.data.full_frame import full_frame_batches
from trainer.data.snapshot import Snapshot
from trainer.data.types import ExampleBatch, Progress
from trainer.distributed.mesh import AXES
from trainer.evaluation import box_files
from trainer.finite import finite
from trainer.inference.encoder import Encoder
from trainer.method.models.transformer import at_least_float32
from trainer.runs.checkpoint import Loaded
from trainer.tasks.encoders import video_in_training, video_in_use
from trainer.tasks.spatiotemporal import head
from trainer.tasks.task import Recipe, TaskError, Views, task_of
from trainer.weights.video import interpolate

NAME: str = "spatiotemporal"

# Clips of whole pictures per batch. AVA's pictures have twice the tokens of a square crop, and the
# cost of attention is quadratic in the tokens.
_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of spatiotemporal localisation; the paper does not specify them."""

    frozen: bool = False  # True trains the head only
    # Bins along each side of a box. SlowFast's value, for 16-pixel cells like the paper's patches.
    bins: int = 7
    dropout: float = 0.5  # SlowFast's value
    # Minimum score of a detector's box, in training and in a test. SlowFast's configurations for
    # AVA v2.2 have 0.8, its default is 0.9.
    detection_score: float = 0.8
    # Minimum IoU at which a detected box is trained on with the actions of a true box. SlowFast's
    # value. A snapshot contains detections if it was built with their file.
    train_iou: float = 0.9
    # Classes that a test evaluates. "ava": the benchmark's 60, with at least 25 instances each in
    # validation and test. "trained": all that occur in training.
    judged: Literal["ava", "trained"] = "ava"

    def __post_init__(self) -> None:
        check_counts(self, "task")
        check_range("task", "dropout", self.dropout, 0.0, below=1.0)
        for name in ("detection_score", "train_iou"):
            check_range("task", name, getattr(self, name), 0.0, 1.0)


TEXTS: int = 0
RECIPES: dict[str, Recipe[Config]] = {
    # SlowFast's rate, batch, epochs and scales, with the paper's optimizer and schedule of the
    # other tasks. (Peers train ViTs by AdamW at 1.25e-4, with layer decay, which this code lacks.)
    "ava": Recipe(
        Config(),
        (
            "optimizer.learning_rate=0.1",
            "batch=64",
            "epochs=20",
            "input.short_side=256",
            "input.scale=1,1.25",  # short sides of 256 to 320
        ),
    ),
    "shapes": Recipe(
        Config(dropout=0.1, judged="trained"),
        ("optimizer.name=muon", "optimizer.learning_rate=3e-3", "batch=64", "epochs=4"),
    ),
}


# --- annotations ---


def _true(clip: clip_pb2.Clip) -> list[clip_pb2.Box]:
    return [box for box in clip.boxes if not box.score]


def _detected(clip: clip_pb2.Clip, settings: Config) -> list[clip_pb2.Box]:
    return [box for box in clip.boxes if box.score and box.score >= settings.detection_score]


def _actions(clip: clip_pb2.Clip, box: clip_pb2.Box) -> list[int]:
    for label in box.labels:
        if not label.isdecimal() or not 1 <= int(label) <= box_files.ACTIONS:
            raise TaskError(
                f"a box of clip {clip.clip_id!r} has the label {label!r}: AVA's actions are the "
                f"numbers 1 … {box_files.ACTIONS}"
            )
    return [int(label) for label in box.labels]


def _corners(boxes: Sequence[clip_pb2.Box]) -> Float[np.ndarray, "n 4"]:
    return np.array([(box.x1, box.y1, box.x2, box.y2) for box in boxes], np.float32).reshape(-1, 4)


def classes(clips: Sequence[clip_pb2.Clip], settings: Config) -> list[str]:
    """Return the numbers of the actions that occur, in order; AVA's training set has all 80."""
    found = {action for clip in clips for box in _true(clip) for action in _actions(clip, box)}
    if not found:
        raise TaskError(
            "the snapshot's clips have no labelled box: build a snapshot of AVA with "
            "svilm-pipelines"
        )
    return [str(action) for action in sorted(found)]


def examples(clips: Sequence[clip_pb2.Clip], classes: Sequence[str], settings: Config) -> Examples:
    """Return one example per keyframe that has true boxes, with the detected boxes that match."""
    place = {int(name): number for number, name in enumerate(classes)}
    records, counts, corners, labels = [], [], [], []
    for record, clip in enumerate(clips):
        true = _true(clip)
        if not true:
            continue
        boxes, of_true = head.trained_on(
            _corners(true), _corners(_detected(clip, settings)), settings.train_iou
        )
        of_each = np.zeros((len(true), len(classes)), bool)
        for row, box in enumerate(true):
            of_each[row, [place[action] for action in _actions(clip, box)]] = True
        records.append(record)
        counts.append(len(boxes))
        corners.append(boxes)
        labels.append(of_each[of_true])
    return Examples(
        np.array(records, np.int64),
        None,
        None,
        Boxes(np.array(counts, np.int64), np.concatenate(corners), np.concatenate(labels)),
    )


# --- training ---


def init_head(key: Key[Array, ""], config: RunConfig, settings: Config, classes: int) -> PyTree:
    """Initialize the classifier."""
    return head.init_head(key, config.video.width, classes)


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
) -> Float[Array, "b k d"]:
    """Return the feature vector of each box."""
    video = video_in_training(params, batch.frames, keys, config, frozen=settings.frozen)
    assert batch.boxes is not None  # `examples` gives boxes
    side = config.video.resolution // config.video.patch
    return _box_features(video.features.tokens, side, batch.boxes, settings)


def _box_features(
    tokens: Float[Array, "b nt s d"], rows: int, boxes: Float[Array, "b k 4"], settings: Config
) -> Float[Array, "b k d"]:
    b, windows, _, width = tokens.shape
    in_place = at_least_float32(tokens).reshape(b, windows, rows, -1, width)
    return head.box_features(in_place, boxes, settings.bins)


def losses(
    params: PyTree,
    encoded: Float[Array, "b k d"],
    batch: ExampleBatch,
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    settings: Config,
) -> dict[str, Float[Array, " b"]]:
    """Return each clip's binary cross entropy and number of boxes.

    The mean loss over clips equals the mean over the boxes of all devices. Boxes that lie outside
    the crop do not count.
    """
    assert batch.boxes is not None and batch.box_labels is not None  # `examples` gives boxes
    real = jnp.all(batch.boxes[..., :2] < batch.boxes[..., 2:], axis=-1)
    found = head.logits(params["head"], encoded, settings.dropout, keys)
    cost = jnp.sum(jnp.where(real, head.costs(found, batch.box_labels), 0), axis=1)
    boxes = jnp.sum(real, axis=1).astype(cost.dtype)
    of_a_clip = jax.lax.pmean(jnp.mean(boxes), AXES)
    return {"loss": cost / jnp.where(of_a_clip > 0, of_a_clip, 1), "boxes": boxes}


# --- inference ---


class Detections(NamedTuple):
    """The probability of each action in each box, with the true boxes."""

    found: box_files.Labelled
    true: box_files.Labelled
    judged: tuple[int, ...]
    boxes_from: str
    missing: int

    def figures(self) -> box_files.Figures:
        """Compute the mAP of both scripts against the snapshot's annotations.

        Neither mAP includes keyframes that the snapshot's build left out, such as AVA's excluded
        ones. The official script evaluates these. A file of detections has them only if the
        snapshot does.
        """
        found = box_files.figures(self.found, self.true, classes=self.judged)
        return {**found, "boxes_from": self.boxes_from, "missing": self.missing}

    def write(self, path: pathlib.Path) -> None:
        """Write the official CSV file of detections."""
        box_files.write_detections(path, self.found)


def predict(run: Loaded, snapshot: Snapshot, progress: Progress, views: Views) -> Detections:
    """Classify the boxes of the detector's file `views.boxes`, or the annotated boxes if None.

    Raises:
      TaskError: the run or snapshot does not fit this task, or no box is at one of its keyframes.
      TaskFileError: the file of boxes has another format.
      NonFiniteError: a probability for a keyframe is not finite; names its clip.
      SnapshotError: a record is damaged, or the snapshot does not fit the model.
    """
    if (views.clips, views.crops) != (1, 1):
        raise TaskError(
            "spatiotemporal localisation takes one clip and the whole frame: leave out --clips "
            "and --crops"
        )
    task = task_of(run, NAME)
    settings, actions = Config(**task["config"]), [int(name) for name in task["classes"]]
    clips = read_annotations(snapshot)
    keyframes = [_keyframe(clip, snapshot) for clip in clips]
    if views.boxes is None:
        given = [list(dict.fromkeys(_as_tuples(_true(clip)))) for clip in clips]
        boxes_from, missing = "ground truth", 0
    else:
        by_keyframe = box_files.read_boxes(views.boxes, settings.detection_score)
        given = [by_keyframe.get(keyframe, []) for keyframe in keyframes]
        boxes_from = pathlib.PurePath(views.boxes).name
        missing = len(by_keyframe.keys() - set(keyframes))
    records = [record for record, boxes in enumerate(given) if boxes]
    if not records:
        raise TaskError(
            f"no box of {boxes_from} is at any of the {len(clips)} keyframes of {snapshot.folder}"
        )
    true = box_files.as_columns(
        (keyframe, box, action, 1.0)
        for keyframe, clip in zip(keyframes, clips, strict=True)
        for one, box in zip(_true(clip), _as_tuples(_true(clip)), strict=True)
        for action in _actions(clip, one)
    )
    most = max(map(len, given))
    padded = np.zeros((len(clips), most, 4), np.float32)
    for record in records:
        padded[record, : len(given[record])] = given[record]
    config = Encoder(run.config, run.tokenizer, run.params).config
    sizes = {record: (clips[record].height, clips[record].width) for record in records}
    likely: dict[int, np.ndarray] = {}
    for some, frames in full_frame_batches(snapshot, sizes, config, _AT_ONCE, progress):
        boxes = padded[np.resize(some, len(frames))]
        probabilities = finite(
            "action probabilities",
            _classify(run.params, frames, boxes, config, settings),
            [f"clip {clips[record].clip_id}" for record in some.tolist()],
        )
        likely.update(zip(some.tolist(), probabilities, strict=False))
    found = box_files.as_columns(
        (keyframes[record], box, action, score)
        for record in records
        for box, of_box in zip(given[record], likely[record].tolist(), strict=False)
        for action, score in zip(actions, of_box, strict=True)
    )
    judged = box_files.JUDGED if settings.judged == "ava" else tuple(actions)
    return Detections(found, true, judged, boxes_from, missing)


def _keyframe(clip: clip_pb2.Clip, snapshot: Snapshot) -> box_files.Keyframe:
    times = {box.time_us for box in clip.boxes}
    if len(times) != 1:
        raise TaskError(
            f"clip {clip.clip_id!r} has boxes at {len(times)} times, but must be a keyframe: give "
            "a snapshot of AVA"
        )
    return clip.video_id, (times.pop() + snapshot.manifest.config.source.cut_at_us) // 1_000_000


def _as_tuples(boxes: Sequence[clip_pb2.Box]) -> Iterator[box_files.Box]:
    for box in boxes:  # Rounding restores the annotated digits from float32.
        yield round(box.x1, 6), round(box.y1, 6), round(box.x2, 6), round(box.y2, 6)


@partial(jax.jit, static_argnames=("config", "settings"))
def _classify(
    params: PyTree,
    frames: UInt8[Array, "b t h w 3"],
    boxes: Float[Array, "b k 4"],
    config: RunConfig,
    settings: Config,
) -> Float[Array, "b k actions"]:
    """Return the action probabilities of boxes in whole pictures."""
    video = config.video
    rows, columns = (length // video.patch for length in frames.shape[2:4])
    side = video.resolution // video.patch
    positions = params["video"]["positions"].reshape(video.windows, side, side, -1)
    resampled = interpolate(positions, video.windows, rows, columns)
    there = params | {"video": params["video"] | {"positions": resampled}}
    tokens = video_in_use(there, frames, config).features.tokens
    features = _box_features(tokens, rows, boxes, settings)
    return jax.nn.sigmoid(head.logits(params["head"], features))
