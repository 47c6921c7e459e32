"""A batch on its way to the devices, where crops are scaled if the host left them as decoded.

Beside fast devices a host's processors have all they can do with decoding. Bilinear scaling and
flipping are one matrix for the rows and one for the columns: at the paper's size 5 GFLOP a clip,
0.2 % of its step's, or 1 % where a float32 product takes six of bfloat16. The bytes on the way are
1.24 times as many.
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
    """This process's clips of a global batch, on its devices and at the model's size.

    Args:
      batch: NumPy arrays, this process's rows of the global batch.
      mesh: the devices of all processes, each one's behind another.
      resolution: R, pixels; of frames that are still to be scaled.

    Returns:
      The global batch, of which each process has its part.
    """
    if isinstance(batch.frames, Crops):
        # Each process for itself, since it is ahead of the others' steps by as much as it likes.
        here = Mesh(np.array(mesh.local_devices).reshape(-1, 1), AXES)
        batch = batch._replace(frames=_scaled_on(here, resolution)(*_placed(batch.frames, here)))
    return jax.tree.map(functools.partial(_of_all, mesh=mesh), batch)


def _placed(crops: Crops, mesh: Mesh) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
    """Puts each device's clips on it, each from where it lies.

    Returns:
      Frames: uint8 [devices, T, S, S, 3] of the first clip of each device, of the second, …; side
      and flipped of all.
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
    """This process's rows as its part of the global batch; what is on a device stays there."""
    sharding = NamedSharding(mesh, PER_CLIP)
    if isinstance(ours, jax.Array):
        rows = len(ours) * mesh.size // len(ours.sharding.device_set)
        parts = [shard.data for shard in ours.addressable_shards]
        return jax.make_array_from_single_device_arrays((rows, *ours.shape[1:]), sharding, parts)
    return jax.make_array_from_process_local_data(sharding, ours)


@functools.lru_cache(maxsize=4)
def _scaled_on(mesh: Mesh, resolution: int) -> Callable[..., jax.Array]:
    def of_device(clips: tuple[jax.Array, ...], side: jax.Array, flipped: jax.Array) -> jax.Array:
        # A copy that costs a device next to nothing.
        return scaled(jnp.concatenate(clips), side, flipped, resolution)

    return jax.jit(on_each_device(of_device, mesh, reduces=False))


def scaled(
    frames: UInt8[Array, "b t s s c"],
    side: Int32[Array, " b"],
    flipped: Bool[Array, " b"],
    resolution: int,
) -> UInt8[Array, "b t r r c"]:
    """Crops at R × R pixels, some of them mirrored.

    Pixels are those that trainer/data/decode.py gives: the same where nothing is scaled, otherwise
    but for the rounding of values half way between two.

    Args:
      frames: the crop in the top left corner of each.
      side: of the crops, pixels, at most `ANTIALIAS_ABOVE` × R.
      flipped: whether they are to be mirrored.
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
        # Without it accelerators would round weights to eight bits.
        product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        narrowed = product("rw,thwc->thrc", columns, pixels)
        return jnp.round(product("rh,thqc->trqc", rows, narrowed)).astype(jnp.uint8)

    # One after another: all at once would take gigabytes in float32.
    return jax.lax.map(of_clip, (frames, side, flipped))


def _bilinear(side: Int32[Array, ""], size: int, resolution: int) -> Float[Array, "r s"]:
    """For each of R pixels the weights of `size` pixels, of which the first `side` are scaled."""
    length = side.astype(jnp.float32)
    centres = (jnp.arange(resolution, dtype=jnp.float32) + 0.5) * (length / resolution) - 0.5
    source = jnp.arange(size, dtype=jnp.float32)[None]
    near = jnp.maximum(1.0 - jnp.abs(centres[:, None] - source), 0.0)
    weights = jnp.where(source < length, near, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)  # along an edge there is one pixel alone
