"""Fine-tuned retrieval: the pre-training's contrast of clips and captions, without splices.

The task has no head. Clips and captions are compared in the joint space. The symmetric InfoNCE over
the batch (eq. 7 with W the identity) trains both encoders. Source: section 4.1, table 8.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, Key, PyTree

from protos.v1 import clip_pb2
from trainer.configs.config import Config as RunConfig
from trainer.data.annotations import captions_of, check_captions, read_annotations
from trainer.data.batches import Examples
from trainer.data.snapshot import Snapshot
from trainer.data.types import ExampleBatch, Progress
from trainer.distributed.mesh import AXES
from trainer.evaluation import retrieval_files
from trainer.inference.encoder import Encoder, embed_clips
from trainer.method import losses as equations
from trainer.method.models.svilm import SViLM
from trainer.method.train_step import all_gather, exact_products, temperatures
from trainer.runs.checkpoint import Loaded
from trainer.runs.provenance import check_joint_space
from trainer.tasks.encoders import video_in_training
from trainer.tasks.task import Recipe, TaskError, Views

NAME: str = "retrieval"


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of retrieval.

    An epoch uses each clip once, with one of its captions drawn at random. The paper does not
    specify this. Frozen-in-Time and MCQ, whose split the paper uses, do the same (CLIP4Clip uses
    all 20 captions of each clip). The temperature is the pre-training's,
    `loss.contrast_temperature`.
    """

    frozen: bool = False  # True trains only the two projections into the joint space


TEXTS: int = 1
RECIPES: dict[str, Recipe[Config]] = {
    "msrvtt": Recipe(Config(), ("optimizer.learning_rate=0.25", "batch=512", "epochs=20")),
    "shapes": Recipe(
        Config(),
        ("optimizer.name=muon", "optimizer.learning_rate=1e-3", "batch=64", "epochs=4"),
    ),
}


class Encoded(NamedTuple):
    """The inputs of the loss, L2-normalized."""

    clip: Float[Array, "b e"]
    caption: Float[Array, "b e"]


def classes(clips: Sequence[clip_pb2.Clip], settings: Config) -> list[str]:
    """Return an empty list, since retrieval compares captions instead of classes."""
    return []


def examples(clips: Sequence[clip_pb2.Clip], classes: Sequence[str], settings: Config) -> Examples:
    """Return one example per clip, with all captions to draw from."""
    captions = [captions_of(clip) for clip in clips]
    for clip, of_clip in zip(clips, captions, strict=True):
        if not all(of_clip):
            raise TaskError(f"clip {clip.clip_id!r} has no caption, which retrieval requires")
    return Examples(np.arange(len(clips)), captions, None)


def init_head(
    key: Key[Array, ""], config: RunConfig, settings: Config, classes: int
) -> dict[str, Any]:
    """Return {}, since retrieval has no head."""
    return {}


def trained(settings: Config) -> tuple[str, ...] | None:
    """Return the projections' names if the encoders are frozen; None trains all."""
    return ("project_text", "project_video") if settings.frozen else None


def encode(
    params: PyTree,
    batch: ExampleBatch,
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    settings: Config,
) -> Encoded:
    """Encode clips and captions into the joint space."""
    video = video_in_training(params, batch.frames, keys, config, frozen=settings.frozen)
    caption: Any = SViLM(config).apply(
        {"params": params}, batch.text_ids, batch.text_mask, method="encode_text"
    )
    return Encoded(video.clip, caption)


def losses(
    params: PyTree,
    encoded: Encoded,
    batch: ExampleBatch,
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    settings: Config,
) -> dict[str, Float[Array, " b"]]:
    """Return the symmetric InfoNCE over the captions and clips of all devices."""
    with exact_products():
        similarity = encoded.clip @ all_gather(encoded.caption).T
        own: Int32[Array, " b"] = batch.index
        columns = similarity.shape[1]
        cost = equations.alignment(
            similarity,
            jax.nn.one_hot(own, columns, dtype=similarity.dtype),
            temperatures(config, params)["contrast"],
            jax.numpy.ones(columns, bool),
            AXES,
        )
    return {"loss": cost}


class Similarities(NamedTuple):
    """The similarity of each caption of a test set to each of its videos."""

    similarity: Float[np.ndarray, "q n"]
    captions: list[retrieval_files.Caption]
    videos: list[str]

    def figures(self) -> Mapping[str, Any]:
        """Compute the metrics of text-to-video and video-to-text retrieval."""
        return retrieval_files.figures(self.similarity, self.captions, self.videos)

    def write(self, path: pathlib.Path) -> None:
        """Write the CSV file of similarities with names."""
        retrieval_files.write(path, self.similarity, self.captions, self.videos)


def predict(run: Loaded, snapshot: Snapshot, progress: Progress, views: Views) -> Similarities:
    """Return cosine similarities in the joint space; a pre-trained run gives zero-shot retrieval.

    Raises:
      RunError: the run is fine-tuned for another task.
      TaskError: `views` asks for several views.
      SnapshotError: as in `embed_clips` and `check_captions`.
    """
    check_joint_space(run.task)
    if views != Views():
        raise TaskError(
            "retrieval takes one clip and one crop per video: leave out --clips and --crops"
        )
    clips = read_annotations(snapshot)
    check_captions(snapshot.folder, [text for clip in clips for text in captions_of(clip)])
    # Clips of one span differ in their captions alone. As two videos, each would rank as a wrong
    # answer to the other's caption.
    first: dict[tuple[str, int, int], int] = {}
    for record, clip in enumerate(clips):
        first.setdefault(_span(clip), record)
    shown = [clips[record] for record in first.values()]
    videos = [clip.video_id for clip in shown]
    if len(set(videos)) < len(videos):  # Spans of one video need ids that include their times.
        videos = [clip.clip_id for clip in shown]
    name = dict(zip(first, videos, strict=True))
    captions = [
        retrieval_files.Caption(name[_span(clip)], text)
        for clip in clips
        for text in captions_of(clip)
    ]
    encoder = Encoder(run.config, run.tokenizer, run.params)
    _, embedded = embed_clips(snapshot, encoder, progress, np.array(list(first.values())))
    similarity = encoder.similarity([caption.text for caption in captions], embedded.clip)
    return Similarities(similarity, captions, videos)


def _span(clip: clip_pb2.Clip) -> tuple[str, int, int]:
    return clip.video_id, clip.start_us, clip.end_us
