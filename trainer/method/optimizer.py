"""The optimizer and its schedule (section 4.2)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax.contrib import MuonDimensionNumbers, muon

from trainer.configs.config import OptimizerConfig
from trainer.method.run_scalars import RunScalars

# This scale gives Muon's updates the size of AdamW's, so both take the same learning rates
# (Liu et al. 2025).
_ADAMW_RMS = 0.2


def learning_rate(
    config: OptimizerConfig, scalars: RunScalars
) -> Callable[[Int[Any, ""]], Float[Array, ""]]:
    """Return a linear warm-up over `warmup_share` of all steps, then a cosine decay to zero.

    This is `optax.warmup_cosine_decay_schedule`, whose lengths must be constants.

    >>> from trainer.configs.config import Config
    >>> from trainer.method.run_scalars import run_scalars
    >>> config = Config(optimizer=OptimizerConfig(warmup_share=0.1))
    >>> schedule = learning_rate(config.optimizer, run_scalars(config, steps=100))
    >>> [round(float(schedule(jnp.int32(step))), 3) for step in (0, 10, 55, 100)]
    [0.0, 0.1, 0.05, 0.0]
    """
    peak, warmup, decay = config.learning_rate, scalars.warmup_steps, scalars.decay_steps

    def rate(count: Int[Any, ""]) -> Float[Array, ""]:
        warmed = jnp.minimum(count, warmup).astype(jnp.float32) * scalars.per_warmup_step
        decayed = jnp.minimum(count - warmup, decay).astype(jnp.float32)
        cosine = 0.5 * (1.0 + jnp.cos(decayed * scalars.radians_per_decay_step))
        return jnp.where(count < warmup, -peak * (1.0 - warmed) + peak, peak * cosine)

    return rate


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Return global-norm clipping followed by SGD with momentum, AdamW or Muon.

    Its initial state does not depend on the schedule. Weight decay applies to the kernels of dense
    layers only. Muon (Jordan et al. 2024) updates those kernels, except that of the tubelet
    embedding. AdamW updates all embeddings, positions, norms, biases and a task's head.
    """
    if config.name == "sgd":
        update = optax.sgd(schedule, momentum=config.momentum)
    elif config.name == "adamw":
        update = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_is_kernel)
    else:
        update = muon(
            schedule,
            weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=_muon_axes,
            consistent_rms=_ADAMW_RMS,
        )
    clip = optax.identity()
    if config.clip_norm is not None:
        clip = optax.clip_by_global_norm(config.clip_norm)
    return optax.chain(clip, update)


def _is_kernel(params: optax.Params) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _muon_axes(params: optax.Params) -> Any:
    return jax.tree_util.tree_map_with_path(_kernel_axes, params)


def _kernel_axes(path: tuple[Any, ...], leaf: Any) -> MuonDimensionNumbers | None:
    """Return a kernel's input and output axes, or None if AdamW updates the parameter."""
    *_, layer, name = names = [key.key for key in path]
    if name != "kernel" or layer == "embed" or names[0] == "head":
        return None
    axes = range(leaf.ndim)
    inputs = leaf.ndim - 1 if layer == "out" else 1  # only "out" has heads among its inputs
    return MuonDimensionNumbers(tuple(axes[:inputs]), tuple(axes[inputs:]))
