"""One training step: cut-and-paste, both encoders, three losses, one update."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import random
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped, UInt32

from trainer.configs.config import Config
from trainer.data.types import Batch
from trainer.distributed.mesh import (
    AXES,
    PER_CLIP,
    gather_params,
    keep_placed,
    on_each_device,
    placed_shapes,
)
from trainer.method import losses
from trainer.method.augment import augment_colour
from trainer.method.bad_steps import LossStatistics, all_finite
from trainer.method.cut_and_paste import Splice, label_weights, paste, splice_at_step
from trainer.method.models.attention import choose
from trainer.method.models.svilm import SViLM, standardise
from trainer.method.optimizer import learning_rate, make_optimizer
from trainer.method.part_rates import lock, scale_updates
from trainer.method.run_scalars import RunScalars, compiled_config, seed_data

# Purpose of a key, folded into it, so that draws for different purposes are independent.
_INIT, COLOUR, SPLICE, GUMBEL, HEAD, DROPOUT = range(6)


@struct.dataclass
class TrainState:
    """All contents of a checkpoint besides the configuration and the vocabulary."""

    step: Int[Any, ""]  # all fields hold arrays, or shapes if `state_shapes` made them
    params: PyTree
    optimizer: PyTree
    watch: LossStatistics
    average: PyTree  # moving average of the parameters; {} if disabled


def init_state(config: Config, mesh: Mesh) -> TrainState:
    """Return fresh parameters from the run's seed, at step 0, placed on the devices."""
    return _init_state(seed_data(config.seed), compiled_config(config), mesh)


@partial(jax.jit, static_argnums=(1, 2))  # drops the forward pass that only infers shapes
def _init_state(seed: UInt32[Array, " words"], config: Config, mesh: Mesh) -> TrainState:
    return keep_placed(begin(init_params(random.wrap_key_data(seed), config), config), mesh)


def init_params(key: Key[Array, ""], config: Config) -> dict[str, Any]:
    """Return fresh parameters of both encoders, and the temperatures if they are learned.

    Args:
      key: the key of the run's seed.
      config: the run's configuration.
    """
    video, text = config.video, config.text
    pixels = jnp.zeros((1, video.frames, video.resolution, video.resolution, 3))
    ids = jnp.zeros((1, text.tokens), jnp.int32)
    variables: Any = SViLM(config).init(random.fold_in(key, _INIT), pixels, ids, ids == 0)
    params: dict[str, Any] = variables["params"]
    if config.loss.learn_temperatures:
        params["log_temperatures"] = {
            name: jnp.log(jnp.float32(value)) for name, value in fixed_temperatures(config).items()
        }
    return params


def begin(
    params: dict[str, Any], config: Config, trained: tuple[str, ...] | None = None
) -> TrainState:
    """Return the state before the first step.

    Args:
      params: the initial parameters.
      config: the run's configuration.
      trained: names of the trainable parameter groups; None trains all.
    """
    optimizer = make_optimizer(config.optimizer, optax.constant_schedule(0.0))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=optimizer.init(divide(params, trained)[0]),
        watch=LossStatistics.begin(),
        average=jax.tree.map(jnp.copy, params) if config.average_decay else {},
    )


def divide(
    params: dict[str, Any], trained: tuple[str, ...] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the trainable parameter groups, and the frozen ones.

    >>> divide({"video": 1, "head": 2}, ("head",))
    ({'head': 2}, {'video': 1})
    """
    moves = {name for name in params if trained is None or name in trained}
    return (
        {name: part for name, part in params.items() if name in moves},
        {name: part for name, part in params.items() if name not in moves},
    )


def state_shapes(config: Config, mesh: Mesh) -> TrainState:
    """Return a state's shapes, types and shardings, without values."""
    return placed_shapes(jax.eval_shape(lambda: init_state(config, mesh)), mesh)


def batch_shapes(config: Config, mesh: Mesh) -> Batch:
    """Return a global batch's shapes and types, sharded over the devices."""
    b, k, length, video = config.batch, config.input.nouns, config.text.tokens, config.video

    def shape(kind: Any, *sizes: int) -> Any:
        return jax.ShapeDtypeStruct(sizes, kind, sharding=NamedSharding(mesh, PER_CLIP))

    return Batch(
        frames=shape(jnp.uint8, b, video.frames, video.resolution, video.resolution, 3),
        caption_ids=shape(jnp.int32, b, length),
        caption_mask=shape(jnp.bool, b, length),
        noun_ids=shape(jnp.int32, b, k, length),
        noun_mask=shape(jnp.bool, b, k, length),
        noun_valid=shape(jnp.bool, b, k),
        index=shape(jnp.int32, b),
    )


def fixed_temperatures(config: Config) -> dict[str, float]:
    """Return the four temperatures of section 5 by name."""
    loss = config.loss
    return {
        "temporal": loss.temporal_temperature,
        "group": loss.group_temperature,
        "grounding": loss.grounding_temperature,
        "contrast": loss.contrast_temperature,
    }


def temperatures(config: Config, params: PyTree) -> dict[str, Any]:
    """Return the current temperatures: fixed, or learned as logarithms."""
    if not config.loss.learn_temperatures:
        return fixed_temperatures(config)
    return {name: jnp.exp(value) for name, value in params["log_temperatures"].items()}


def clip_keys(
    key: Key[Array, ""], step: Int[Array, ""], index: Int[Array, " b"]
) -> Key[Array, " b"]:
    """Derive a key for each clip from (run's key, step, index in the global batch) alone."""
    of_step = random.fold_in(key, step)
    return jax.vmap(partial(random.fold_in, of_step))(index)


def for_purpose(keys: Key[Array, " b"], purpose: int) -> Key[Array, " b"]:
    """Derive independent keys for another use of the same clips."""
    return jax.vmap(lambda key: random.fold_in(key, purpose))(keys)


class Encoded(NamedTuple):
    """Outputs of both encoders that the losses of a whole batch need, in float32."""

    clip: Float[Array, "b e"]  # f^v
    groups: Float[Array, "b m e"]  # g^m
    caption: Float[Array, "b e"]  # f^c
    nouns: Float[Array, "b k e"]  # n^k
    temporal: Float[Array, " b"] | None  # L_t, which needs no other clip; None if disabled
    usage: Float[Array, "b m"]  # share of the clip's tokens that each group holds


def total_loss(
    params: PyTree,
    batch: Batch,
    splice: Splice,
    keys: Key[Array, " b"],
    config: Config,
    mesh: Mesh,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return L = ω1 L_t + ω2 L_g + ω3 L_contrast over a batch (section 3.4), and its parts."""
    loss = config.loss
    encode = partial(encode_clips, config=with_attention(config, mesh))
    encode = in_parts(encode, config.compute.microbatches)
    encoded = on_each_device(encode, mesh, replicated=1, reduces=False)(params, batch, splice, keys)

    per_clip = on_each_device(partial(clip_losses, config=config), mesh, replicated=1)(
        temperatures(config, params), encoded, batch.noun_valid, label_weights(splice)
    )
    parts = {name: jnp.mean(costs) for name, costs in per_clip.items()}
    total = jnp.asarray(
        loss.temporal_weight * parts.get("temporal", 0.0)
        + loss.grounding_weight * parts.get("grounding", 0.0)
        + loss.contrast_weight * parts.get("contrast", 0.0)
    )
    return total, parts | {"loss": total} | group_usage(jax.lax.stop_gradient(encoded.usage))


def with_attention(config: Config, mesh: Mesh) -> Config:
    """Return the configuration with the attention kernel that suits the mesh's devices."""
    attention = choose(config.video, config.compute, mesh.devices.flat[0].platform)
    return dataclasses.replace(
        config, compute=dataclasses.replace(config.compute, attention=attention)
    )


def encode_clips(
    params: PyTree, batch: Batch, splice: Splice, keys: Key[Array, " b"], *, config: Config
) -> Encoded:
    """Apply cut-and-paste and both encoders to a device's clips: whole groups of `pair_group`.

    Neither pixels nor video tokens leave the device.
    """
    pixels = augment_colour(batch.frames, for_purpose(keys, COLOUR), config.input)
    pixels = paste(pixels, splice._replace(partner=splice.partner - batch.index[0]))
    # Concatenating a caption and its nouns encodes a clip's texts on that clip's device.
    ids = jnp.concatenate([batch.caption_ids[:, None], batch.noun_ids], axis=1)
    mask = jnp.concatenate([batch.caption_mask[:, None], batch.noun_mask], axis=1)
    encoded: Any = SViLM(config).apply(
        {"params": params},
        standardise(pixels, config.video),
        ids.reshape(-1, ids.shape[-1]),
        mask.reshape(-1, mask.shape[-1]),
        for_purpose(keys, GUMBEL),
    )
    video, text = encoded
    text = text.reshape(*ids.shape[:2], -1)
    temporal = None
    if config.loss.temporal_weight:
        with exact_products():
            temporal = losses.temporal_grouping(
                video.features.tokens,
                splice.mask,
                temperatures(config, params)["temporal"],
                config.loss.temporal,
            )
    return Encoded(
        clip=video.clip,
        groups=video.groups,
        caption=text[:, 0],
        nouns=text[:, 1:],
        temporal=temporal,
        usage=jnp.mean(video.features.assignment.hard, axis=-1),
    )


def in_parts(encode: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """Return `encode_clips`, or a task's encoder, applied to a device's clips in `parts` parts.

    Only the returned values of a part are kept. So the losses, and their gradient with respect to
    the embeddings, are those of the whole batch. The backward pass encodes each part again, with
    the same noise, and accumulates its share of the gradient. These are the two passes of gradient
    caching (Gao et al. 2021).
    """
    if parts == 1:
        return encode

    def encode_all(params: PyTree, *clips: PyTree) -> Any:
        def encode_part(part: tuple[PyTree, ...]) -> Any:
            return encode(params, *part)

        split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), clips)
        encoded = jax.lax.map(jax.checkpoint(encode_part, prevent_cse=False), split)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), encoded)

    return encode_all


def clip_losses(
    tau: dict[str, Any],
    encoded: Encoded,
    noun_valid: Bool[Array, "b k"],
    weights: Float[Array, "b c"],
    *,
    config: Config,
) -> dict[str, Float[Array, " b"]]:
    """Return the losses of a device's clips against the captions of all devices.

    Only captions and nouns go to other devices: K + 1 vectors per clip. Group tokens stay.
    """
    loss = config.loss
    parts = {}
    if encoded.temporal is not None:
        parts["temporal"] = encoded.temporal
    with exact_products():
        if loss.grounding_weight:
            every_noun, every_valid = all_gather(encoded.nouns), all_gather(noun_valid)
            similarity = losses.grounding_similarity(
                encoded.groups, every_noun, every_valid, tau["group"], loss.grounding_block
            )
            with_nouns = jnp.any(every_valid, axis=1)
            parts["grounding"] = losses.alignment(
                similarity, weights, tau["grounding"], with_nouns, AXES
            )
        if loss.contrast_weight:
            similarity = encoded.clip @ all_gather(encoded.caption).T
            every = jnp.ones(similarity.shape[1], bool)
            parts["contrast"] = losses.alignment(similarity, weights, tau["contrast"], every, AXES)
    return parts


def exact_products() -> Any:
    """Return a context for float32 products without rounding to bfloat16 or TF32 inputs."""
    return jax.default_matmul_precision("highest")


def all_gather(x: Any) -> Any:
    """Concatenate an array's shards from all devices; for use within `on_each_device`."""
    return jax.lax.all_gather(x, AXES, tiled=True)


def group_usage(usage: Float[Array, "b m"]) -> dict[str, Float[Array, ""]]:
    """Measure how evenly groups are used: grouping is known to collapse (GroupViT #35, #60).

    Args:
      usage: share of its clip's tokens that each group holds.

    Returns:
      group_entropy: entropy of a clip's usage, mean over clips, as a share of the maximum log M; 0
        with one group.
      groups_dead: number of groups that hold no token in any clip of the batch.
    """
    entropy = -jnp.sum(usage * jnp.log(jnp.maximum(usage, 1e-9)), axis=-1)
    return {
        "group_entropy": jnp.mean(entropy) / (math.log(usage.shape[1]) or 1.0),
        "groups_dead": jnp.sum(jnp.max(usage, axis=0) < 1e-6).astype(jnp.float32),
    }


def update_average(average: PyTree, params: PyTree, step: Int[Array, ""], decay: float) -> PyTree:
    """Return the exponential moving average of parameters after one more step.

    a ← a + (1 − min(d, (1 + s)/(10 + s)))·(p − a). The decay grows to its value, as in
    TensorFlow's ExponentialMovingAverage, so that the average soon forgets the initial parameters.

    >>> float(update_average(jnp.float32(0), jnp.float32(1), jnp.int32(0), decay=0.999))
    0.8999999761581421
    """
    s = step.astype(jnp.float32)
    rest = 1.0 - jnp.minimum(decay, (1.0 + s) / (10.0 + s))
    return jax.tree.map(lambda a, p: a + rest.astype(a.dtype) * (p - a), average, params)


@partial(jax.jit, static_argnames=("config", "mesh"), donate_argnums=0)
def train_step(
    state: TrainState, batch: Batch, scalars: RunScalars, *, config: Config, mesh: Mesh
) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
    """Update the parameters once.

    Args:
      state: donated; use the returned one.
      batch: sharded over the devices by clip.
      scalars: the run's seed and schedule.
      config: static; `compiled_config` of the run's lets other runs share the compiled step.
      mesh: the devices; static.

    Returns:
      The state after the step, and its metrics: losses, group usage, the gradient's norm before
      clipping, and whether the step was bad (bad_steps.py). If the configuration skips bad steps, a
      bad step changes only the step counts of the state.
    """
    keys = clip_keys(scalars.key(), state.step, batch.index)
    splice = splice_at_step(
        for_purpose(keys, SPLICE),
        state.step,
        config.video.windows,
        config.cut_and_paste,
        scalars.first_spliced_step,
    )

    def loss(params: PyTree) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        return total_loss(gather_params(params, mesh), batch, splice, keys, config, mesh)

    return apply_gradients(state, loss, scalars, config, mesh)


def apply_gradients(
    state: TrainState,
    loss: Callable[[PyTree], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]],
    scalars: RunScalars,
    config: Config,
    mesh: Mesh,
    trained: tuple[str, ...] | None = None,
) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
    """Apply one optimizer update by the gradient of `loss`.

    Args:
      state: the state before the step.
      loss: maps the parameters to the loss and its metrics, of which "loss" is the loss itself.
      scalars: the run's schedule.
      config: the run's configuration.
      mesh: the devices.
      trained: names of the trainable parameter groups; None trains all.

    Returns:
      The state after the step, and its metrics, as in `train_step`.
    """
    moving, fixed = divide(state.params, trained)

    def loss_of(some: PyTree) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        return loss(lock(some, config.optimizer) | fixed)

    gradient, metrics = jax.grad(loss_of, has_aux=True)(moving)
    gradient = keep_placed(gradient, mesh)
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        optimizer = make_optimizer(config.optimizer, learning_rate(config.optimizer, scalars))
        update, optimizer = optimizer.update(gradient, state.optimizer, moving)
        update = scale_updates(update, config.optimizer, state.step)
    changed: Any = optax.apply_updates(moving, update)
    params: Any = changed | fixed
    if config.loss.learn_temperatures:  # a clamp to [0.01, 1] in the loss would stop the gradient
        params["log_temperatures"] = {
            name: jnp.clip(value, jnp.log(0.01), 0.0)
            for name, value in params["log_temperatures"].items()
        }
    average = state.average
    if config.average_decay:
        average = update_average(average, params, state.step, config.average_decay)
    # Checking the state covers the last step too, whose parameters no later loss checks.
    finite = all_finite(params, optimizer, average)
    bad = state.watch.is_bad(metrics["loss"], metrics["gradient_norm"], config.spike) | ~finite
    if config.on_bad_step == "skip":
        params, optimizer, average = jax.tree.map(
            partial(jnp.where, bad),
            (state.params, state.optimizer, state.average),
            (params, optimizer, average),
        )
    watch = state.watch.after(metrics["loss"], bad, config.spike)
    metrics |= {
        "bad_in_a_row": watch.in_a_row,
        "mean_loss": state.watch.mean_loss(config.spike),
        "skipped_steps": watch.skipped,
        "state_finite": finite,
    }
    state = TrainState(state.step + 1, params, optimizer, watch, average)
    return keep_placed(state, mesh), metrics
