"""Learning rates of pre-trained parts: locked, slower toward the input, or frozen at first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.lax import stop_gradient
from jaxtyping import Array, Int, PyTree

from trainer.configs.config import OptimizerConfig, RatesConfig

_LAYER = "layer_"
_NEW = ("group_tokens", "norm_groups", "grouping_")


def lock(params: PyTree, config: OptimizerConfig) -> PyTree:
    """Return the parameters, of which those with factor 0 have no gradient.

    So they do not count in the gradient's norm, and the products for their gradients are not
    computed. The video encoder's backward pass remains, as group tokens pass through its layers.
    """
    if config.video_rates.factor and config.text_rates.factor:
        return params
    factors = learning_rate_factors(params, config)
    return jax.tree.map(lambda p, factor: p if factor else stop_gradient(p), params, factors)


def scale_updates(
    updates: optax.Updates, config: OptimizerConfig, step: Int[Array, ""]
) -> optax.Updates:
    """Multiply each parameter's update by its learning rate's factor at a step, counted from 0."""
    if config.video_rates == config.text_rates == RatesConfig():
        return updates

    def scaled(path: tuple[Any, ...], update: Array) -> Array:
        rates, factor = _rates(path, config), _factor(path, updates, config)
        if rates is not None and rates.frozen_steps:
            return jnp.where(step < rates.frozen_steps, 0.0, factor).astype(update.dtype) * update
        return update if factor == 1.0 else factor * update

    return jax.tree_util.tree_map_with_path(scaled, updates)


def learning_rate_factors(params: PyTree, config: OptimizerConfig) -> PyTree:
    """Return each parameter's factor of `learning_rate`, once none is frozen.

    >>> params = {"text": {"words": 0, "layer_1": 0, "layer_2": 0}, "project_text": 0}
    >>> rates = RatesConfig(factor=0.5, layer_decay=0.5)
    >>> factors = learning_rate_factors(params, OptimizerConfig(text_rates=rates))
    >>> factors["text"], factors["project_text"]
    ({'layer_1': 0.25, 'layer_2': 0.5, 'words': 0.125}, 1.0)
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _factor(path, params, config), params)


def _rates(path: tuple[Any, ...], config: OptimizerConfig) -> RatesConfig | None:
    """Return the rates of a parameter; None for one that no published weights fill."""
    encoder, *rest = (key.key for key in path)
    if encoder == "video" and not rest[0].startswith(_NEW):
        return config.video_rates
    return config.text_rates if encoder == "text" else None


def _factor(path: tuple[Any, ...], tree: Any, config: OptimizerConfig) -> float:
    rates = _rates(path, config)
    if rates is None:
        return 1.0
    encoder, name = path[0].key, path[1].key
    layers = sum(one.startswith(_LAYER) for one in tree[encoder])
    if name.startswith(_LAYER):
        above = layers - int(name.removeprefix(_LAYER))
    else:
        above = 0 if encoder == "video" and name == "norm" else layers
    return rates.factor * rates.layer_decay**above
