"""The report's page: all sections, inserted into page.html.

All its clips are drawn at random from a fixed seed, never chosen.
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
    """Return the page as HTML.

    Args:
      run: the checkpoint.
      log: the training log (trainer.training.metric_writer.read).
      metrics: the run's metrics on `test`.
      test: the clips of the evaluation.
      progress: called with the clips done and their total after each batch.
      seen: the overlap of their videos with the run's training videos.
      train: the training clips, for the manifest table and captions. None leaves them out.
      truth: the objects of each test clip. None leaves them out.
      control: a run without the temporal loss, the baseline of the windows. None leaves it out.

    Raises:
      EvaluationError: the control run sees clips differently from the run, or has a temporal loss.
      SnapshotError: a record is damaged, or the snapshot does not suit the model.
      TruthError: the ground truth lacks a clip.
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
        title="S-ViLM: run report",
        subtitle=(
            f"{run.step:,} steps with batch {run.config.batch}: {size:.1f} million "
            f"parameters, {video.frames} frames of {video.resolution}² pixels, "
            f"{video.group_tokens} groups; evaluated on {len(texts):,} clips of "
            f"{escape(test.manifest.dataset)}: {escape(seen.sentence())}."
        ),
        sections="\n".join(sections),
        footer="All clips on this page are a random sample with a fixed seed. Written by "
        "<code>svilm-train report</code>.",
    )
