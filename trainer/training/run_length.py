"""Limit of a run's length, and what its number of steps leaves out, reported before it starts."""

import math

from trainer.configs.config import Config
from trainer.data import order


def describe(config: Config, visits: int) -> str:
    """Return the number of steps of a run, and the setting that limits it.

    Args:
      config: the run's configuration.
      visits: number of clips per epoch.

    >>> describe(Config(batch=4, epochs=2), 12)
    '6 steps: 2 epochs of 3'
    >>> describe(Config(batch=4, epochs=2, max_steps=5), 12)
    '5 steps: max_steps=5 ends the run in epoch 2 of 2'
    >>> describe(Config(batch=4, epochs=2, max_steps=9), 12)
    '6 steps: epochs=2 of 3 steps end the run before max_steps=9; epochs=3 would reach it'
    """
    an_epoch = order.steps_per_epoch(visits, config.batch)
    steps = order.total_steps(visits, config.batch, config.epochs, config.max_steps)
    if config.max_steps is None or config.max_steps == config.epochs * an_epoch:
        return f"{steps:,} steps: {config.epochs:,} epochs of {an_epoch:,}"
    if steps == config.max_steps:
        epoch = math.ceil(steps / an_epoch)
        return (
            f"{steps:,} steps: max_steps={steps} ends the run in epoch {epoch:,} of "
            f"{config.epochs:,}"
        )
    return (
        f"{steps:,} steps: epochs={config.epochs} of {an_epoch:,} steps end the run before "
        f"max_steps={config.max_steps}; epochs={math.ceil(config.max_steps / an_epoch)} would "
        "reach it"
    )


def find_left_out(
    config: Config, steps: int, *, evaluates: bool = False, profile: tuple[int, int] | None = None
) -> list[str]:
    """Return a line for each configured action that so few steps leave out.

    Args:
      config: the run's configuration.
      steps: number of steps of the whole run.
      evaluates: True if retrieval is measured during training.
      profile: the first and last step of a trace, counted from 1.

    >>> find_left_out(Config(checkpoint_every=50), 100)
    []
    >>> for line in find_left_out(Config(checkpoint_every=50), 8):
    ...     print(line)
    no warm-up: optimizer.warmup_share=0.05 of 8 steps is less than one
    no checkpoint before the end: checkpoint_every=50
    """
    left_out = []
    cut, optimizer, spike = config.cut_and_paste, config.optimizer, config.spike
    if cut.enabled and cut.first_step(steps) >= steps:
        temporal = ", and the temporal loss is not trained" if config.loss.temporal_weight else ""
        left_out.append(
            f"no clips are spliced{temporal}: cut_and_paste.from_step={cut.from_step}; set "
            "cut_and_paste.from_step=none and cut_and_paste.from_share"
        )
    if optimizer.warmup_share and not round(optimizer.warmup_share * steps):
        left_out.append(
            f"no warm-up: optimizer.warmup_share={optimizer.warmup_share:g} of {steps} steps is "
            "less than one"
        )
    if config.checkpoint_every >= steps > 1:
        left_out.append(f"no checkpoint before the end: checkpoint_every={config.checkpoint_every}")
    if (config.checkpoint_keep_every or 0) > steps:
        left_out.append(
            "no checkpoint is kept permanently: "
            f"checkpoint_keep_every={config.checkpoint_keep_every}"
        )
    if evaluates and config.evaluate_every >= steps > 1:
        left_out.append(
            f"retrieval is evaluated only at the end: evaluate_every={config.evaluate_every}"
        )
    if spike.loss_factor is not None and spike.from_step >= steps:
        left_out.append(f"spikes are not detected: spike.from_step={spike.from_step}")
    if profile and profile[1] > steps:
        left_out.append(f"no trace of steps {max(profile[0], steps + 1)} to {profile[1]}")
    return left_out
