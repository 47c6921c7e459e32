"""Zero-shot moment retrieval: the spans of untrimmed videos that texts describe.

The snapshot has the sliding windows of whole videos (`build activitynet --window 2 --stride 0.5`).
Nothing is trained. A model with random parameters searches in the same way, as a baseline.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from protos.v1 import clip_pb2
from trainer.data.annotations import read_annotations
from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.evaluation import moment_files, moment_recall
from trainer.evaluation.moment_files import Span, Truth
from trainer.inference import moments
from trainer.inference.encoder import Encoder, frames_in_batches
from trainer.runs.checkpoint import Loaded
from trainer.tasks.task import TaskError
from trainer.tasks.zero_shot import fresh_encoder


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The spans found for each query, best first, and those that random parameters find."""

    truth: Truth
    found: list[list[Span]]
    random_encoder: list[list[Span]]

    def figures(self) -> moment_files.Moments:
        """Compute the metrics."""
        return moment_files.figures(self.found, self.truth, self.random_encoder)

    def write(self, path: pathlib.Path) -> None:
        """Write the spans found, as JSON Lines."""
        moment_files.write_predictions(path, self.truth.queries, self.found)


def predict(run: Loaded, snapshot: Snapshot, truth: Truth, progress: Progress) -> Predictions:
    """Find each query's spans among the windows of its video.

    Queries of videos that the snapshot lacks have no span, and count as missed.

    Raises:
      TaskError: the snapshot has none of the videos, or has their captioned clips, whose spans are
        the answers.
      SnapshotError: a record is damaged, or the snapshot does not suit the model.
    """
    asked = {query.video_id for query in truth.queries}
    clips = read_annotations(snapshot)
    records = np.array([row for row, clip in enumerate(clips) if clip.video_id in asked], np.int64)
    if not len(records):
        raise TaskError(
            f"{snapshot.folder} has none of the {len(asked):,} videos of {truth.name}: build it "
            "from the same annotation file with --window"
        )
    windows = [clips[row] for row in records]
    if captioned := next((clip for clip in windows if clip.caption), None):
        raise TaskError(
            f"{snapshot.folder}: clip {captioned.clip_id!r} has a caption, so its span is an "
            "answer: build windows of whole videos with --window"
        )
    encoders = {
        "found": Encoder(run.config, run.tokenizer, run.params),
        "random_encoder": fresh_encoder(run),
    }
    parts: dict[str, list[np.ndarray]] = {name: [] for name in encoders}
    for frames, texts in frames_in_batches(snapshot, encoders["found"], progress, records):
        for name, encoder in encoders.items():
            encoded = encoder.clips(frames, [text.clip_id for text in texts])
            parts[name].append(encoded.clip[: len(texts)])
    spans: dict[str, Any] = {
        name: _search(encoder, np.concatenate(parts[name]), windows, truth)
        for name, encoder in encoders.items()
    }
    return Predictions(truth, **spans)


def _search(
    encoder: Encoder, vectors: np.ndarray, windows: Sequence[clip_pb2.Clip], truth: Truth
) -> list[list[Span]]:
    """Return each query's spans, in seconds, within its video."""
    rows: dict[str, list[int]] = {}
    for row, window in enumerate(windows):
        rows.setdefault(window.video_id, []).append(row)
    times_us = np.array([(window.start_us, window.end_us) for window in windows])
    found = []
    for query, text in zip(
        truth.queries, encoder.texts([query.text for query in truth.queries]), strict=True
    ):
        mine, spans = rows.get(query.video_id, []), []
        if mine:
            best = moments.find(vectors[mine], times_us[mine], text, max(moment_recall.RANKS))
            # A file may be longer than its published duration.
            ends = [min(one.end_us / 1e6, query.duration) for one in best]
            spans = [
                Span(one.start_us / 1e6, end, one.score)
                for one, end in zip(best, ends, strict=True)
                if one.start_us / 1e6 < end
            ]
        found.append(spans)
    return found
