"""Zero-shot retrieval on test clips during training."""

import numpy as np
from jax.sharding import Mesh

from trainer.configs.config import Config
from trainer.data.annotations import check_captions, read_annotations
from trainer.data.batches import check_suits
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.tokenizer import Tokenizer
from trainer.distributed.mesh import on_own_devices
from trainer.evaluation import retrieval
from trainer.inference.encoder import Encoder, embed_clips
from trainer.method.train_step import TrainState


class RetrievalValidation:
    """Evaluator of a training state on the same clips each time, without random draws.

    It does not change the state. Every process evaluates all the clips on its own devices, so that
    none waits for another.
    """

    def __init__(
        self, snapshot: Snapshot, tokenizer: Tokenizer, config: Config, mesh: Mesh
    ) -> None:
        """Choose `evaluate_clips` clips, spread over the snapshot.

        Raises:
          SnapshotError: the snapshot has fewer than two clips, does not suit the model, or is
            refused by `check_captions`.
        """
        if len(snapshot) < 2:
            raise SnapshotError(
                f"{snapshot.folder} has {len(snapshot)} clips, but retrieval needs two or more"
            )
        check_suits(snapshot, tokenizer, config)
        count = min(config.evaluate_clips, len(snapshot))
        self._records = np.arange(count) * len(snapshot) // count
        chosen = read_annotations(snapshot, self._records)
        check_captions(snapshot.folder, [clip.caption for clip in chosen])
        self._snapshot, self._tokenizer = snapshot, tokenizer
        self._config, self._mesh = config, mesh

    def measure(self, state: TrainState) -> dict[str, float]:
        """Return R@1, R@5, R@10 in percent and the median rank, for both directions.

        It uses the averaged parameters if the state has them. All processes must call it together.

        Raises:
          SnapshotError: a record is damaged.
        """
        params = on_own_devices(state.average or state.params, self._mesh)
        encoder = Encoder(self._config, self._tokenizer, params)
        texts, clips = embed_clips(self._snapshot, encoder, lambda *_: None, self._records)
        found = retrieval.zero_shot(
            encoder.similarity([text.caption for text in texts], clips.clip)
        )
        return {
            f"{direction}_{name}": found[direction][name]
            for direction in ("t2v", "v2t")
            for name in ("R@1", "R@5", "R@10", "MedR")
        }
