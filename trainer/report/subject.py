"""What a report is about: a run, and the test clips as it encodes them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from trainer.checkpoint import Loaded
from trainer.data.batches import ClipText
from trainer.data.snapshot import Snapshot
from trainer.embed import EncodedClips, Encoder
from trainer.evaluate import Metrics
from trainer.tasks.truth import ClipKey, TrueObject

_SEED = 0


@dataclasses.dataclass(frozen=True)
class Subject:
    """All that the sections draw from."""

    run: Loaded
    log: list[dict[str, Any]]  # of training, a logged step each
    metrics: Metrics
    test: Snapshot
    train: Snapshot | None
    truth: dict[ClipKey, list[TrueObject]] | None
    control: Loaded | None
    encoder: Encoder
    texts: list[ClipText]
    clips: EncodedClips

    def draw(self, count: int, purpose: int) -> list[int]:
        """Some records, at random."""
        chance = np.random.default_rng([_SEED, purpose])
        count = min(count, len(self.texts))
        return chance.choice(len(self.texts), count, replace=False).tolist()

    def nouns(self) -> tuple[list[str], Float[np.ndarray, "k e"]]:
        """The noun phrases of all clips, one after another, and their embeddings."""
        phrases = [noun for text in self.texts for noun in text.nouns]
        template = self.test.manifest.config.prompt_templates[0]
        return phrases, self.encoder.texts([template.format(phrase) for phrase in phrases])
