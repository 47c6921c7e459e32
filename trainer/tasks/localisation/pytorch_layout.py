"""G-TAD with the weights and array layouts of its authors' PyTorch code.

It serves comparisons with that code, and weights that it trained:

  answer(state, features, true_map, true_start, true_end, uniform) -> Answer

`state` is a state_dict of that code as NumPy arrays, with or without the prefix `module.`:
backbone1.0 (stem), backbone1.2 and backbone2.0 (graph blocks), regu_s.0/1 and regu_e.0/1 (start
and end), localization.0/2/4/6/8 (map), each with .weight [out, in / groups, kernel…] and .bias. A
block has tconvs.0/2/4 and sconvs.0/2/4. The sizes follow from it. Arrays are [B, C, T], maps
[B, 2, D, S], and gradients have the shapes of the weights. float64 features are computed in
float64.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from trainer.tasks.localisation import losses
from trainer.tasks.localisation.gtad import GTAD, GtadConfig, sampling_of

_CONVOLUTIONS = {
    "stem": "backbone1.0",
    "start": "regu_s.1",
    "end": "regu_e.1",
    "map_2": "localization.2",
    "map_3": "localization.4",
    "map_4": "localization.6",
    "map_5": "localization.8",
}
_BLOCKS = {
    "base": "backbone1.2",
    "second": "backbone2.0",
    "start_graph": "regu_s.0",
    "end_graph": "regu_e.0",
}
_OF_BLOCK = {
    "temporal_in": "tconvs.0",
    "temporal": "tconvs.2",
    "temporal_out": "tconvs.4",
    "semantic_in": "sconvs.0",
    "semantic": "sconvs.2",
    "semantic_out": "sconvs.4",
}
_FIRST_OF_MAP = "localization.0"

State = Mapping[str, Float[np.ndarray, "..."]]


class LayoutError(ValueError):
    """Weights that are not G-TAD's, or do not fit the features."""


class Answer(NamedTuple):
    """The network's outputs, its losses, and the gradients of `total`."""

    map: Float[np.ndarray, "b 2 d s"]
    start: Float[np.ndarray, "b t"]
    end: Float[np.ndarray, "b t"]
    losses: dict[str, float]  # total, boundary, regression, classification
    gradients: dict[str, Float[np.ndarray, "..."]]  # by the state's names and "features"


def answer(
    state: State,
    features: Float[np.ndarray, "b c t"],
    true_map: Float[np.ndarray, "b d s"],
    true_start: Float[np.ndarray, "b t"],
    true_end: Float[np.ndarray, "b t"],
    uniform: Float[np.ndarray, "2 b d s"],
) -> Answer:
    """Run a forward and a backward pass.

    Args:
      state: the weights.
      features: features of b videos at T times each.
      true_map: target IoU of each proposal, by duration and start.
      true_start: target of each time, for starts.
      true_end: target of each time, for ends.
      uniform: random numbers in [0, 1) with which the regression loss samples proposals, for IoU in
        (0.3, 0.7] and in (0, 0.3]. Ones select all of them, zeros none.

    Raises:
      LayoutError: a weight is missing or unexpected, or a weight or array has a wrong shape.
    """
    check_arrays(
        features,
        {
            "true_map": true_map,
            "true_start": true_start,
            "true_end": true_end,
            "uniform": uniform,
        },
    )
    config = config_of(state, features.shape[1], features.shape[2])
    with jax.enable_x64(features.dtype == np.float64):
        arrays = (features.transpose(0, 2, 1), true_map, true_start, true_end, uniform)
        weights, sampling, *placed = jax.tree.map(
            lambda array: jnp.asarray(array, features.dtype),
            (params(state), sampling_of(config), *arrays),
        )
        (_, (outputs, parts)), (of_weights, of_features) = _forward_and_back(
            weights, *placed, sampling=sampling, config=config
        )
        gradients = state_of(jax.tree.map(np.asarray, of_weights))
        gradients["features"] = np.asarray(of_features).transpose(0, 2, 1)
        return Answer(
            map=np.asarray(outputs.map).transpose(0, 3, 1, 2),
            start=np.asarray(outputs.start),
            end=np.asarray(outputs.end),
            losses={name: float(value) for name, value in parts._asdict().items()},
            gradients=gradients,
        )


def check_arrays(features: np.ndarray, others: Mapping[str, np.ndarray]) -> None:
    """Check that arrays fit `answer`; `others` has its array arguments by name.

    Raises:
      LayoutError: an array has a wrong shape, or the features are not float32 or float64.
    """
    if features.ndim != 3 or features.dtype not in (np.float32, np.float64):
        raise LayoutError(
            f"features must be float32 or float64 [videos, channels, times], got {features.dtype} "
            f"{features.shape}"
        )
    b, _, t = features.shape
    shapes = {"true_map": (b, t, t), "uniform": (2, b, t, t)}
    for name, array in others.items():
        if array.shape != (wanted := shapes.get(name, (b, t))):
            raise LayoutError(
                f"{name} must be {wanted} for features {features.shape}, got {array.shape}"
            )


@partial(jax.jit, static_argnames="config")
def _forward_and_back(
    weights: Any, features: Any, *true: Any, sampling: Any, config: GtadConfig
) -> tuple[Any, Any]:
    def loss(weights: Any, features: Any) -> tuple[Any, Any]:
        outputs: Any = GTAD(config).apply({"params": weights}, features, sampling)
        parts = losses.losses(outputs, *true)
        return parts.total, (outputs, parts)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(weights, features)


def config_of(state: State, channels: int, length: int) -> GtadConfig:
    """Return the sizes of a network from its weights.

    Args:
      state: the weights.
      channels: number of channels of the features.
      length: number of times T.

    Raises:
      LayoutError: a weight is missing or has a wrong shape, or the weights do not fit the features.
    """
    state = _without_prefix(state)
    stem, grouped = _weight(state, "backbone1.0"), _weight(state, "backbone1.2.tconvs.2")
    first, second = _weight(state, _FIRST_OF_MAP), _weight(state, "localization.2")
    if channels % stem.shape[1]:
        raise LayoutError(
            f"features have {channels} channels, not a multiple of the {stem.shape[1]} per group "
            "of backbone1.0"
        )
    sizes = GtadConfig()
    config = GtadConfig(
        length=length,
        width=stem.shape[0],
        stem_groups=channels // stem.shape[1],
        groups=grouped.shape[0] // grouped.shape[1],
        group_width=grouped.shape[1],
        map_width=first.shape[0],
        map_hidden=second.shape[0],
    )
    wanted = config.width * (sizes.inner_bins + sizes.context_bins)
    if first.shape[1] != wanted:
        raise LayoutError(
            f"{_FIRST_OF_MAP}.weight takes {first.shape[1]} features per proposal, expected "
            f"{wanted}: {config.width} in {sizes.inner_bins} and {sizes.context_bins} bins"
        )
    if config.width % config.stem_groups or length < config.neighbours:
        raise LayoutError(
            f"features of {channels} channels at {length} times do not fit: backbone1.0 has "
            f"{config.width} channels in {config.stem_groups} groups, and each time "
            f"{config.neighbours} neighbours"
        )
    for name, wanted in _shapes(config, channels).items():
        if (found := _named(state, name).shape) != wanted:
            raise LayoutError(f"{name} must be {wanted} to match the other weights, got {found}")
    return config


def _shapes(config: GtadConfig, channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights of a network, by their names in a state_dict."""
    regions = config.length * (config.length + 1) // 2 + 1
    bins = config.inner_bins + config.context_bins
    ours: Any = jax.eval_shape(
        GTAD(config).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, config.length, channels), jnp.float32),
        jax.ShapeDtypeStruct((regions, bins, config.length), jnp.float32),
    )
    arrays = state_of(jax.tree.map(lambda leaf: np.empty(leaf.shape), ours["params"]))
    return {name: array.shape for name, array in arrays.items()}


def params(state: State) -> dict[str, Any]:
    """Convert a state_dict to the parameters of `GTAD`.

    Raises:
      LayoutError: a weight is missing or unexpected.
    """
    state = _without_prefix(state)
    ours: dict[str, Any] = {}
    used = {f"{_FIRST_OF_MAP}.weight", f"{_FIRST_OF_MAP}.bias"}
    for path, theirs in _places():
        *block, layer = path
        inside = ours.setdefault(block[0], {}) if block else ours
        kernel = _weight(state, theirs)
        kernel = np.moveaxis(kernel, (0, 1), (-1, -2))  # [out, in, k…] -> [k…, in, out]
        if layer.startswith("map"):
            kernel = kernel[0, 0]  # The 1×1 convolution of that code is a dense layer here.
        inside[layer] = {"kernel": kernel, "bias": _bias(state, theirs)}
        used |= {f"{theirs}.weight", f"{theirs}.bias"}
    if left := sorted(state.keys() - used):
        raise LayoutError(f"{len(left)} weights are not part of G-TAD, such as {left[0]}")
    first, width = _weight(state, _FIRST_OF_MAP), _weight(state, "backbone1.0").shape[0]
    # The inputs in that code are ordered by channel, then by bin.
    by_channel = first[:, :, 0, 0].reshape(first.shape[0], width, -1)
    ours["map_1_kernel"] = by_channel.transpose(2, 1, 0)
    ours["map_1_bias"] = _bias(state, _FIRST_OF_MAP)
    return ours


def state_of(params: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "..."]]:
    """Convert the parameters of `GTAD`, or their gradients, to a state_dict."""
    state = {}
    for path, theirs in _places():
        *block, layer = path
        inside = (params[block[0]] if block else params)[layer]
        kernel = inside["kernel"]
        if layer.startswith("map"):
            kernel = kernel[None, None]
        state[f"{theirs}.weight"] = np.moveaxis(kernel, (-1, -2), (0, 1))
        state[f"{theirs}.bias"] = inside["bias"]
    first = params["map_1_kernel"].transpose(2, 1, 0)
    state[f"{_FIRST_OF_MAP}.weight"] = first.reshape(first.shape[0], -1, 1, 1)
    state[f"{_FIRST_OF_MAP}.bias"] = params["map_1_bias"]
    return state


def _places() -> list[tuple[tuple[str, ...], str]]:
    """Return the path of each convolution of `GTAD`, and its name in a state_dict."""
    inside = [
        ((block, layer), f"{theirs}.{of_block}")
        for block, theirs in _BLOCKS.items()
        for layer, of_block in _OF_BLOCK.items()
    ]
    return [((ours,), theirs) for ours, theirs in _CONVOLUTIONS.items()] + inside


def _without_prefix(state: State) -> dict[str, np.ndarray]:
    return {name.removeprefix("module."): np.asarray(array) for name, array in state.items()}


def _weight(state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    kernel = _named(state, f"{name}.weight")
    wanted = 4 if "sconvs" in name or "localization" in name else 3
    if kernel.ndim != wanted:
        raise LayoutError(f"{name}.weight has {kernel.ndim} axes, expected {wanted}")
    return kernel


def _bias(state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return _named(state, f"{name}.bias")


def _named(state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in state:
        raise LayoutError(f"{name} is missing among {len(state)} weights")
    return state[name]
