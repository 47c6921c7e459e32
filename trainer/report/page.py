"""The report's page: all sections, set into page.html.

All clips on it are drawn at random from a fixed seed, never chosen.
"""

import pathlib
import string
from typing import Any

import jax

from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.evaluation.ground_truth import ClipKey, TrueObject
from trainer.inference.encoder import Encoder, embed_clips
from trainer.report import curves, retrieval, structure
from trainer.report.context import Subject
from trainer.report.drawing import escape
from trainer.runs.checkpoint import Loaded
from trainer.runs.seen_clips import Overlap
from trainer.tasks.zero_shot import Metrics, check_control

_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")


def page(
    run: Loaded,
    log: list[dict[str, Any]],
    metrics: Metrics,
    test: Snapshot,
    progress: Progress,
    *,
    seen: Overlap,
    train: Snapshot | None = None,
    truth: dict[ClipKey, list[TrueObject]] | None = None,
    control: Loaded | None = None,
) -> str:
    """Makes the page.

    Args:
      run: the checkpoint.
      log: what was logged in training (trainer.training.metric_writer.read).
      metrics: of the run on `test`.
      test: the clips that it was evaluated on.
      progress: told of each batch of them.
      seen: how many of their videos the run was trained on.
      train: the clips that it was trained on, for their figures.
      truth: what each test clip shows.
      control: a run without the temporal loss, to compare with.

    Raises:
      EvaluationError: the control's clips are others than the run's.
      SnapshotError: a record is damaged, or the snapshot does not suit the model.
      TruthError: the ground truth does not have a clip.
    """
    if control is not None:
        check_control(run, control)
    encoder = Encoder(run.config, run.tokenizer, run.params)
    texts, clips = embed_clips(test, encoder, progress)
    subject = Subject(run, log, metrics, test, train, truth, control, encoder, texts, clips)
    sections = (
        curves.headline(subject),
        curves.training(log, curves.trained(subject)),
        retrieval.findings(subject),
        structure.nouns(subject),
        structure.splices(subject),
        structure.groups(subject),
        curves.snapshots(subject),
    )
    video = run.config.video
    size = sum(leaf.size for leaf in jax.tree.leaves(run.params)) / 1e6
    return string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title="Clips found by words",
        subtitle=(
            f"S-ViLM after {run.step:,} steps of {run.config.batch} clips: {size:.1f} million "
            f"parameters, {video.frames} frames of {video.resolution}² pixels, "
            f"{video.group_tokens} groups; tested on {len(texts):,} clips of "
            f"{escape(test.manifest.dataset)}: {escape(seen.sentence())}."
        ),
        sections="\n".join(sections),
        footer="Every clip on this page was drawn at random from a fixed seed. Made by "
        "<code>svilm-train report</code>.",
    )
