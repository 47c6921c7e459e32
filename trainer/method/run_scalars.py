"""Split a run's settings into a compiled step's static configuration and its scalar arguments.

Runs that differ only in their seed, length or bookkeeping share one compiled step. So a study of
five seeds compiles once, and so does a run that is continued with another `log_every`.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import random
from jaxtyping import Float32, Int32, Key, UInt32

from trainer.configs.config import Config


class RunScalars(NamedTuple):
    """The numbers of a run that its compiled step takes as arguments."""

    seed: UInt32[Any, " words"]  # the key of the run's seed, as its data
    first_spliced_step: Int32[Any, ""]  # counted from 0
    warmup_steps: Int32[Any, ""]
    decay_steps: Int32[Any, ""]
    # Reciprocals, since XLA compiles a division by a constant to a multiplication by its
    # reciprocal. So a run that began with constants continues to the same bit.
    per_warmup_step: Float32[Any, ""]  # 1/warmup_steps
    radians_per_decay_step: Float32[Any, ""]  # π/decay_steps

    def key(self) -> Key[jax.Array, ""]:
        """Return the key from which all noise of the run is derived."""
        return random.wrap_key_data(self.seed)


@functools.lru_cache(maxsize=64)
def run_scalars(config: Config, steps: int) -> RunScalars:
    """Return the numbers of a run of `steps` steps.

    >>> numbers = run_scalars(Config(), steps=1000)
    >>> int(numbers.warmup_steps), int(numbers.decay_steps)
    (50, 950)
    """
    warmup = config.optimizer.warmup_steps(steps)
    decay = steps - warmup
    return RunScalars(
        seed=seed_data(config.seed),
        first_spliced_step=np.int32(config.cut_and_paste.first_step(steps)),
        warmup_steps=np.int32(warmup),
        decay_steps=np.int32(decay),
        per_warmup_step=np.float32(1) / np.float32(max(warmup, 1)),
        radians_per_decay_step=np.float32(math.pi) * (np.float32(1) / np.float32(decay)),
    )


def seed_data(seed: int) -> UInt32[np.ndarray, " words"]:
    """Return the data of a seed's key, in memory of the host: every process has the same."""
    with jax.ensure_compile_time_eval():
        return np.asarray(random.key_data(random.key(seed)))


@functools.lru_cache(maxsize=64)
def compiled_config(config: Config) -> Config:
    """Return the configuration with the default of every field that no compiled step reads.

    >>> a, b = Config(seed=1, max_steps=9), Config(seed=2, log_every=5)
    >>> compiled_config(a) == compiled_config(b)
    True
    """
    default = Config()
    unread = {
        name: getattr(default, name)
        for name in (
            *("epochs", "max_steps", "seed", "log_every", "skip_in_a_row"),
            *("checkpoint_every", "checkpoint_keep", "checkpoint_keep_every"),
            *("evaluate_every", "evaluate_clips"),
        )
    }
    cut, optimizer, read = config.cut_and_paste, config.optimizer, config.input
    return dataclasses.replace(
        config,
        cut_and_paste=dataclasses.replace(cut, from_share=0.0, from_step=None),
        optimizer=dataclasses.replace(optimizer, warmup_share=default.optimizer.warmup_share),
        input=dataclasses.replace(
            read, weights=(), where=(), weights_column=(), on_corrupt=default.input.on_corrupt
        ),
        **unread,
    )
