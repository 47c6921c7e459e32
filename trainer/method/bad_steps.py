"""Detection of bad steps: a non-finite loss, gradient or parameter, or a spike.

It is part of the compiled step, which can skip their update. training/bad_step_report.py reports
them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PyTree

from trainer.configs.config import SpikeConfig


@struct.dataclass
class LossStatistics:
    """Statistics of earlier steps, kept in the training state."""

    loss: Any  # float32 [], a decayed sum of the losses of good steps
    good: Any  # int32 [], number of good steps
    skipped: Any  # int32 [], number of bad steps
    in_a_row: Any  # int32 [], number of consecutive bad steps up to the last step

    @classmethod
    def begin(cls) -> "LossStatistics":
        """Return the statistics before the first step."""
        return cls(jnp.zeros(()), *(jnp.zeros((), jnp.int32) for _ in range(3)))

    def mean_loss(self, spike: SpikeConfig) -> Float[Array, ""]:
        """Return Σ dⁱ(1 − d)·loss₋ᵢ of good steps over the sum of its weights; 0 before any."""
        weights = 1.0 - spike.loss_decay ** self.good.astype(jnp.float32)
        return self.loss / jnp.where(self.good > 0, weights, 1.0)

    def is_bad(
        self, loss: Float[Array, ""], gradient_norm: Float[Array, ""], spike: SpikeConfig
    ) -> Bool[Array, ""]:
        """Return whether a step's update would spoil the run.

        >>> two = LossStatistics.begin().after(jnp.float32(1.0), jnp.bool(False), SpikeConfig())
        >>> limited = SpikeConfig(loss_factor=2.0, from_step=1)
        >>> [bool(two.is_bad(jnp.float32(x), jnp.float32(1.0), limited)) for x in (1.9, 2.1)]
        [False, True]
        """
        bad = ~(jnp.isfinite(loss) & jnp.isfinite(gradient_norm))
        if spike.gradient_norm is not None:
            bad |= gradient_norm > spike.gradient_norm
        if spike.loss_factor is not None:
            limit = spike.loss_factor * self.mean_loss(spike)
            bad |= (self.good >= spike.from_step) & (loss > limit)
        return bad

    def after(
        self, loss: Float[Array, ""], bad: Bool[Array, ""], spike: SpikeConfig
    ) -> "LossStatistics":
        """Return the statistics updated by one more step."""
        decayed = spike.loss_decay * self.loss + (1.0 - spike.loss_decay) * loss
        skips = bad.astype(jnp.int32)
        return LossStatistics(
            loss=jnp.where(bad, self.loss, decayed),
            good=self.good + 1 - skips,
            skipped=self.skipped + skips,
            in_a_row=jnp.where(bad, self.in_a_row + 1, 0),
        )


def all_finite(*trees: PyTree) -> Bool[Array, ""]:
    """Return whether all floating-point numbers of `trees` are finite; usable under `jax.jit`.

    >>> bool(all_finite({"kernel": jnp.ones(2)}, {"count": jnp.int32(1)}))
    True
    >>> bool(all_finite({"kernel": jnp.array([1.0, jnp.inf])}))
    False
    """
    floats = [leaf for leaf in jax.tree.leaves(trees) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    wrong = sum(jnp.sum(~jnp.isfinite(leaf), dtype=jnp.float32) for leaf in floats)
    return jnp.asarray(wrong) == 0
