"""One training step: cut-and-paste, both encoders, three losses, one update."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import random
from jaxtyping import Array, Float, Int, Key, PyTree

from trainer import losses
from trainer.augment import augment_colour
from trainer.batch import Batch
from trainer.configs.config import Config
from trainer.cut_and_paste import Splice, label_weights, paste, splice_at_step
from trainer.models.svilm import SViLM, standardise
from trainer.optimiser import make_optimiser

# What a key is for; folded in, so that draws for different purposes are independent.
_INIT, _COLOUR, _SPLICE, _GUMBEL = 0, 1, 2, 3


@struct.dataclass
class TrainState:
    """All that a checkpoint holds besides the configuration and the vocabulary."""

    step: Int[Array, ""]
    params: PyTree
    optimiser: PyTree


@partial(jax.jit, static_argnums=(0, 1))  # leaves out the forward pass that shapes come from
def init_state(config: Config, steps: int) -> TrainState:
    """Fresh parameters from the run's seed, at step 0."""
    video, text = config.video, config.text
    pixels = jnp.zeros((1, video.frames, video.resolution, video.resolution, 3))
    ids = jnp.zeros((1, text.tokens), jnp.int32)
    key = random.fold_in(random.key(config.seed), _INIT)
    variables: Any = SViLM(config).init(key, pixels, ids, ids == 0)
    params: dict[str, Any] = variables["params"]
    if config.loss.learn_temperatures:
        params["log_temperatures"] = {
            name: jnp.log(jnp.float32(value)) for name, value in fixed_temperatures(config).items()
        }
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimiser=make_optimiser(config.optimiser, steps).init(params),
    )


def fixed_temperatures(config: Config) -> dict[str, float]:
    """The four temperatures of section 5 by name."""
    loss = config.loss
    return {
        "temporal": loss.temporal_temperature,
        "group": loss.group_temperature,
        "grounding": loss.grounding_temperature,
        "contrast": loss.contrast_temperature,
    }


def temperatures(config: Config, params: PyTree) -> dict[str, Any]:
    """The temperatures in force: fixed, or learned as logarithms and clamped to [0.01, 1]."""
    if not config.loss.learn_temperatures:
        return fixed_temperatures(config)
    learned = params["log_temperatures"]
    return {name: jnp.clip(jnp.exp(value), 0.01, 1.0) for name, value in learned.items()}


def clip_keys(seed: int, step: Int[Array, ""], index: Int[Array, " b"]) -> Key[Array, " b"]:
    """A key for each clip from (seed, step, place in the global batch) alone."""
    of_step = random.fold_in(random.key(seed), step)
    return jax.vmap(partial(random.fold_in, of_step))(index)


def for_purpose(keys: Key[Array, " b"], purpose: int) -> Key[Array, " b"]:
    """Independent keys for another use of the same clips."""
    return jax.vmap(lambda key: random.fold_in(key, purpose))(keys)


def total_loss(
    params: PyTree, batch: Batch, splice: Splice, keys: Key[Array, " b"], config: Config
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """L = ω1 L_t + ω2 L_g + ω3 L_contrast over a batch (section 3.4), and its parts."""
    loss, video = config.loss, config.video
    size = len(batch.index)
    pixels = augment_colour(batch.frames, for_purpose(keys, _COLOUR), config.input)
    pixels = standardise(paste(pixels, splice), video)

    nouns = batch.noun_ids.shape[1]
    encoded: Any = SViLM(config).apply(
        {"params": params},
        pixels,
        jnp.concatenate([batch.caption_ids, batch.noun_ids.reshape(size * nouns, -1)]),
        jnp.concatenate([batch.caption_mask, batch.noun_mask.reshape(size * nouns, -1)]),
        for_purpose(keys, _GUMBEL),
    )
    clip, text = encoded
    caption, noun = text[:size], text[size:].reshape(size, nouns, -1)
    weights = label_weights(splice)
    tau = temperatures(config, params)

    parts = {}
    if loss.temporal_weight:
        parts["temporal"] = jnp.mean(
            losses.temporal_grouping(
                clip.features.tokens, splice.mask, tau["temporal"], loss.temporal
            )
        )
    if loss.grounding_weight:
        similarity = losses.grounding_similarity(
            clip.groups, noun, batch.noun_valid, tau["group"], loss.grounding_block
        )
        captions_with_nouns = jnp.any(batch.noun_valid, axis=1)
        parts["grounding"] = jnp.mean(
            losses.alignment(similarity, weights, tau["grounding"], captions_with_nouns)
        )
    if loss.contrast_weight:
        similarity = clip.clip @ caption.T
        every_caption = jnp.ones(size, bool)
        parts["contrast"] = jnp.mean(
            losses.alignment(similarity, weights, tau["contrast"], every_caption)
        )
    total = (
        loss.temporal_weight * parts.get("temporal", 0.0)
        + loss.grounding_weight * parts.get("grounding", 0.0)
        + loss.contrast_weight * parts.get("contrast", 0.0)
    )
    usage = jnp.mean(clip.features.assignment.hard, axis=-1)
    return total, parts | {"loss": total} | group_usage(jax.lax.stop_gradient(usage))


def group_usage(usage: Float[Array, "b m"]) -> dict[str, Float[Array, ""]]:
    """How evenly groups are used: grouping is known to collapse (GroupViT issues 35, 60).

    Args:
      usage: share of its clip's tokens that each group holds.

    Returns:
      group_entropy: of a clip's usage, mean over clips, as a share of the maximum log M.
      groups_dead: groups that hold no token in any clip of the batch.
    """
    entropy = -jnp.sum(usage * jnp.log(jnp.maximum(usage, 1e-9)), axis=-1)
    return {
        "group_entropy": jnp.mean(entropy) / jnp.log(float(usage.shape[1])),
        "groups_dead": jnp.sum(jnp.max(usage, axis=0) < 1e-6).astype(jnp.float32),
    }


@partial(jax.jit, static_argnames=("config", "steps"), donate_argnums=0)
def train_step(
    state: TrainState, batch: Batch, *, config: Config, steps: int
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Updates the parameters once.

    Args:
      state: donated; use the returned one.
      batch: on the device.
      config: static.
      steps: of the whole run, for the schedule; static.
    """
    keys = clip_keys(config.seed, state.step, batch.index)
    splice = splice_at_step(
        for_purpose(keys, _SPLICE), state.step, config.video.windows, config.cut_and_paste
    )
    gradient, metrics = jax.grad(total_loss, has_aux=True)(
        state.params, batch, splice, keys, config
    )
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    with jax.numpy_dtype_promotion("standard"):  # optax takes a float to an integer power
        update, optimiser = make_optimiser(config.optimiser, steps).update(
            gradient, state.optimiser, state.params
        )
    params = optax.apply_updates(state.params, update)
    return TrainState(step=state.step + 1, params=params, optimiser=optimiser), metrics
