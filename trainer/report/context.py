"""The subject of a report: a run, and the test clips as the run encodes them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from trainer.data.batches import ClipText
from trainer.data.snapshot import Snapshot
from trainer.evaluation.ground_truth import ClipKey, TrueObject
from trainer.inference.encoder import EncodedClips, Encoder
from trainer.runs.checkpoint import Loaded
from trainer.tasks.zero_shot import Metrics

_SEED = 0


def describe(snapshot: Snapshot) -> str:
    """Return a snapshot's folder, data set, version and manifest hash for a caption."""
    manifest = snapshot.manifest
    return (
        f"{snapshot.folder} ({manifest.dataset} {manifest.data_version}, manifest sha256 "
        f"{snapshot.manifest_sha256[:12]})"
    )


@dataclasses.dataclass(frozen=True)
class Subject:
    """The inputs of all sections of a report."""

    run: Loaded
    log: list[dict[str, Any]]  # one entry per logged training step
    metrics: Metrics
    test: Snapshot
    train: Snapshot | None
    truth: dict[ClipKey, list[TrueObject]] | None
    control: Loaded | None
    encoder: Encoder
    texts: list[ClipText]
    clips: EncodedClips

    @property
    def run_name(self) -> str:
        """The run and its step, for captions."""
        name = "the model" if self.run.folder is None else str(self.run.folder)
        average = ", EMA of the parameters" if self.run.averaged else ""
        return f"{name}, step {self.run.step:,}{average}"

    @property
    def of(self) -> str:
        """The run, its step and the test clips, for captions."""
        return f"{self.run_name}, on {len(self.texts):,} clips of {describe(self.test)}."

    def draw(self, count: int, purpose: int) -> list[int]:
        """Return up to `count` records drawn at random, from a seed fixed per `purpose`."""
        chance = np.random.default_rng([_SEED, purpose])
        count = min(count, len(self.texts))
        return chance.choice(len(self.texts), count, replace=False).tolist()

    def nouns(self) -> tuple[list[str], Float[np.ndarray, "k e"]]:
        """Return the noun phrases of all clips, concatenated, and their embeddings."""
        phrases = [noun for text in self.texts for noun in text.nouns]
        template = self.test.manifest.config.prompt_templates[0]
        return phrases, self.encoder.texts([template.format(phrase) for phrase in phrases])
