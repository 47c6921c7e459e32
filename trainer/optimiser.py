"""The optimiser and its schedule (section 4.2; METHOD section 6)."""

import jax
import optax

from trainer.configs.config import OptimiserConfig


def learning_rate(config: OptimiserConfig, steps: int) -> optax.Schedule:
    """Linear warm-up over `warmup_share` of all steps, then cosine to zero.

    >>> schedule = learning_rate(OptimiserConfig(warmup_share=0.1), 100)
    >>> [round(float(schedule(step)), 3) for step in (0, 10, 55, 100)]
    [0.0, 0.1, 0.05, 0.0]
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=round(config.warmup_share * steps),
        decay_steps=steps,
    )


def _is_matrix(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimiser(config: OptimiserConfig, steps: int) -> optax.GradientTransformation:
    """Global-norm clipping, then SGD with momentum or AdamW (decay on matrices only)."""
    schedule = learning_rate(config, steps)
    if config.name == "sgd":
        update = optax.sgd(schedule, momentum=config.momentum)
    else:
        update = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_is_matrix)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
