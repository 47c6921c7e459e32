"""The G-TAD network (Xu et al. 2020), as its authors run it on ActivityNet.

It maps features to scored proposals. Times are nodes of two graphs, one of neighbours on the axis
and one of neighbours in feature space. Each proposal (start, duration) samples the features of its
region. It gets two scores: its expected IoU with an action, and the probability that this IoU is
high.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trainer.configs.fields import check_counts
from trainer.tasks.localisation import align

# PyTorch's initialization: uniform in ±1/√(inputs).
_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_init_of_bins = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=(0, 1))


@dataclasses.dataclass(frozen=True)
class GtadConfig:
    """The sizes of the network; the defaults are the authors'."""

    length: int = 100  # T: number of times that a video's features are interpolated to
    width: int = 256  # channels per time
    stem_groups: int = 4
    groups: int = 32  # groups of the middle convolutions of a graph block
    group_width: int = 4  # channels per group
    neighbours: int = 3  # neighbours in feature space, including the time itself
    inner_bins: int = 32
    context_bins: int = 4
    map_width: int = 512  # channels of a proposal in the first layer of the map
    map_hidden: int = 128  # channels of a proposal in the next layers

    def __post_init__(self) -> None:
        check_counts(self, "network")


class Outputs(NamedTuple):
    """The network's probabilities for b videos."""

    map: Float[Array, "b d s 2"]  # for each proposal: its IoU, and that the IoU exceeds 0.9
    start: Float[Array, "b t"]  # that an action starts at this time
    end: Float[Array, "b t"]


def nearest(x: Float[Array, "b t c"], k: int) -> Int[Array, "b t k"]:
    """Return the k nearest times of each time by squared distance, including the time itself.

    >>> nearest(jnp.array([[[0.0], [5.0], [1.0]]]), 2).tolist()
    [[[0, 2], [1, 2], [2, 0]]]
    """
    squared = jnp.sum(jnp.square(x), axis=-1)
    products = jnp.einsum("btc,buc->btu", x, x, precision="highest")
    _, places = jax.lax.top_k(2 * products - squared[:, :, None] - squared[:, None, :], k)
    return places


def neighbours(x: Float[Array, "b t c"], k: int) -> Float[Array, "b t k c"]:
    """Return the features of the k nearest times of each time."""
    return jax.vmap(lambda of_video, places: of_video[places])(x, nearest(x, k))


class GCNeXt(nn.Module):
    """A block of both graphs, each a bottleneck with a grouped convolution and no norm."""

    config: GtadConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """Return ReLU(temporal + x + maximum over the semantic messages)."""
        c = self.config
        middle, width = c.groups * c.group_width, x.shape[-1]
        t = nn.relu(nn.Conv(middle, (1,), kernel_init=_init, name="temporal_in")(x))
        grouped = nn.Conv(
            middle,
            (3,),
            padding=1,
            feature_group_count=c.groups,
            kernel_init=_init,
            name="temporal",
        )
        t = nn.relu(grouped(t))
        t = nn.Conv(width, (1,), kernel_init=_init, name="temporal_out")(t)

        near = neighbours(x, c.neighbours)
        own = jnp.broadcast_to(x[:, :, None], near.shape)
        s = jnp.concatenate([near, own], axis=-1)
        s = nn.relu(nn.Conv(middle, (1, 1), kernel_init=_init, name="semantic_in")(s))
        grouped = nn.Conv(
            middle, (1, 1), feature_group_count=c.groups, kernel_init=_init, name="semantic"
        )
        s = nn.relu(grouped(s))
        s = nn.Conv(width, (1, 1), kernel_init=_init, name="semantic_out")(s)
        return nn.relu(t + x + jnp.max(s, axis=2))


class GTAD(nn.Module):
    """The whole network."""

    config: GtadConfig = GtadConfig()

    @nn.compact
    def __call__(self, features: Float[Array, "b t c"], sampling: Float[Array, "a p t"]) -> Outputs:
        """Score all proposals of videos.

        Args:
          features: features at the configuration's T times.
          sampling: `align.sampling`; an argument because it is too large for a constant.
        """
        c = self.config
        stem = nn.Conv(
            c.width, (3,), padding=1, feature_group_count=c.stem_groups, kernel_init=_init,
            name="stem",
        )  # fmt: skip
        base = GCNeXt(c, name="base")(nn.relu(stem(features)))

        def boundary(name: str) -> Float[Array, "b t"]:
            of_times = GCNeXt(c, name=f"{name}_graph")(base)
            return nn.sigmoid(nn.Conv(1, (1,), kernel_init=_init, name=name)(of_times)[..., 0])

        start, end = boundary("start"), boundary("end")

        x = GCNeXt(c, name="second")(base)
        context = jnp.mean(neighbours(x, c.neighbours), axis=2)
        # One dense layer over all bins of a region. Both the layer and the sampling are linear, so
        # the layer comes first: there are far fewer times than proposals.
        bins = c.inner_bins + c.context_bins
        kernel = self.param("map_1_kernel", _init_of_bins, (bins, c.width, c.map_width))
        bias = self.param("map_1_bias", nn.initializers.zeros, (c.map_width,))
        of_bins = jnp.concatenate(
            [
                jnp.einsum("btc,pco->bpto", x, kernel[: c.inner_bins]),
                jnp.einsum("btc,pco->bpto", context, kernel[c.inner_bins :]),
            ],
            axis=1,
        )
        y = nn.relu(jnp.einsum("apt,bpto->bao", sampling, of_bins) + bias[None, None])
        for layer in (2, 3, 4):
            y = nn.relu(nn.Dense(c.map_hidden, kernel_init=_init, name=f"map_{layer}")(y))
        y = nn.sigmoid(nn.Dense(2, kernel_init=_init, name="map_5")(y))
        return Outputs(y[:, align.region_of(c.length)], start, end)


def sampling_of(config: GtadConfig) -> Float[Array, "a p t"]:
    """Return the sampling matrix for `GTAD`."""
    return jnp.asarray(align.sampling(config.length, config.inner_bins, config.context_bins))
