"""Transfer of batches to the devices, which scale the crops if the host left them unscaled.

Beside fast devices a host's processors are fully busy with decoding. Bilinear scaling and flipping
are one matrix for the rows and one for the columns. At the paper's size this takes 5 GFLOP per
clip. That is 0.2 % of the clip's step, or 1 % if a float32 product takes six of bfloat16. The
transfer is 1.24 times as many bytes.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int32, UInt8

from trainer.data.types import Batch, Crops, ExampleBatch
from trainer.distributed.mesh import AXES, PER_CLIP, on_each_device

AnyBatch = TypeVar("AnyBatch", Batch, ExampleBatch)


def on_devices(batch: AnyBatch, mesh: Mesh, resolution: int) -> AnyBatch:
    """Place this process's clips of a global batch on its devices, at the model's size.

    Args:
      batch: NumPy arrays, this process's rows of the global batch.
      mesh: the devices of all processes, grouped by process.
      resolution: R, pixels; size of frames that are not scaled yet.

    Returns:
      The global batch, of which each process holds its part.
    """
    if isinstance(batch.frames, Crops):
        # Each process scales on a mesh of its own, since it may be any number of steps ahead.
        here = Mesh(np.array(mesh.local_devices).reshape(-1, 1), AXES)
        batch = batch._replace(frames=_scaled_on(here, resolution)(*_placed(batch.frames, here)))
    return jax.tree.map(functools.partial(_of_all, mesh=mesh), batch)


def _placed(crops: Crops, mesh: Mesh) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
    """Put each device's clips on it, without an intermediate copy.

    Returns:
      Frames: uint8 [devices, T, S, S, 3] of the first clip of each device, of the second, …; side
      and flipped of all clips.
    """
    sharding, devices = NamedSharding(mesh, PER_CLIP), mesh.devices.ravel()
    each = len(crops.frames) // mesh.size

    def nth(n: int) -> jax.Array:
        parts = [
            jax.device_put(crops.frames[place * each + n][None], device)
            for place, device in enumerate(devices)
        ]
        shape = (mesh.size, *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)

    frames = tuple(nth(n) for n in range(each))
    return frames, *jax.device_put((crops.side, crops.flipped), sharding)


def _of_all(ours: np.ndarray | jax.Array, mesh: Mesh) -> jax.Array:
    """Return this process's rows as its part of the global batch; data on a device stays there."""
    sharding = NamedSharding(mesh, PER_CLIP)
    if isinstance(ours, jax.Array):
        rows = len(ours) * mesh.size // len(ours.sharding.device_set)
        parts = [shard.data for shard in ours.addressable_shards]
        return jax.make_array_from_single_device_arrays((rows, *ours.shape[1:]), sharding, parts)
    return jax.make_array_from_process_local_data(sharding, ours)


@functools.lru_cache(maxsize=4)
def _scaled_on(mesh: Mesh, resolution: int) -> Callable[..., jax.Array]:
    def of_device(clips: tuple[jax.Array, ...], side: jax.Array, flipped: jax.Array) -> jax.Array:
        # This concatenation costs a device almost nothing.
        return scaled(jnp.concatenate(clips), side, flipped, resolution)

    return jax.jit(on_each_device(of_device, mesh, reduces=False))


def scaled(
    frames: UInt8[Array, "b t s s c"],
    side: Int32[Array, " b"],
    flipped: Bool[Array, " b"],
    resolution: int,
) -> UInt8[Array, "b t r r c"]:
    """Scale crops to R × R pixels, and flip those that `flipped` selects.

    The pixels equal those of trainer/data/decode.py where nothing is scaled. Otherwise they differ
    only in the rounding of values half way between two integers.

    Args:
      frames: frames with the crop in the top left corner.
      side: side of each crop, pixels, at most `ANTIALIAS_ABOVE` × R.
      flipped: True mirrors the crop.
      resolution: R, pixels.

    >>> row = jnp.array([[[0], [100], [255]]], jnp.uint8)  # the crop is 2 pixels wide
    >>> frames = jnp.broadcast_to(row, (1, 1, 3, 3, 1))
    >>> scaled(frames, jnp.array([2]), jnp.array([True]), resolution=4)[0, 0, 0, :, 0].tolist()
    [100, 75, 25, 0]
    """

    def of_clip(
        of_one: tuple[UInt8[Array, "t s s c"], Int32[Array, ""], Bool[Array, ""]],
    ) -> UInt8[Array, "t r r c"]:
        clip, length, mirrored = of_one
        pixels = clip.astype(jnp.float32)
        rows = _bilinear(length, pixels.shape[1], resolution)
        columns = jnp.where(mirrored, rows[::-1], rows)
        # At the default precision accelerators would round weights to eight bits.
        product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        narrowed = product("rw,thwc->thrc", columns, pixels)
        return jnp.round(product("rh,thqc->trqc", rows, narrowed)).astype(jnp.uint8)

    # The clips are scaled one after another: all at once would take gigabytes in float32.
    return jax.lax.map(of_clip, (frames, side, flipped))


def _bilinear(side: Int32[Array, ""], size: int, resolution: int) -> Float[Array, "r s"]:
    """Return the weights of `size` source pixels for R pixels; the first `side` are scaled."""
    length = side.astype(jnp.float32)
    centres = (jnp.arange(resolution, dtype=jnp.float32) + 0.5) * (length / resolution) - 0.5
    source = jnp.arange(size, dtype=jnp.float32)[None]
    near = jnp.maximum(1.0 - jnp.abs(centres[:, None] - source), 0.0)
    weights = jnp.where(source < length, near, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)  # at an edge only one pixel has a weight
