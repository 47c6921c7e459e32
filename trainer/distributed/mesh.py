"""Sharding of a run over devices: clips over all of them, parameters by explicit rules."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from trainer.configs.config import Config
from trainer.errors import UserError

AXES = ("data", "fsdp")
"""The mesh's axes: replicas of the parameters, and the devices that share one replica."""

PER_CLIP = PartitionSpec(AXES)
REPLICATED = PartitionSpec()

# The first rule whose expression matches the end of a parameter's path selects its sharded axis.
_RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"head\..*", REPLICATED),  # a downstream task's head, which is small
    (r"(query|key|value|in|embed)\.kernel", PartitionSpec("fsdp")),
    (r"out\.kernel", PartitionSpec("fsdp")),
    (r"project_(video|text)\.kernel", PartitionSpec("fsdp")),
    (r"(words|positions|types|group_tokens)", PartitionSpec(None, "fsdp")),
    (r"prefix_tokens", PartitionSpec(None, None, "fsdp")),
    (r"(scale|bias)", REPLICATED),
    (r"log_temperatures\.\w+", REPLICATED),
    (r"ns_coeffs", REPLICATED),  # Muon's coefficients
)


# Platforms of the fused attention kernels.
_PLATFORMS = {"pallas": "tpu", "cudnn": "gpu"}


class MeshError(UserError, ValueError):
    """Devices, batch or parameters that do not fit together."""


def make_mesh(config: Config, devices: Sequence[Any] | None = None) -> Mesh:
    """Build the mesh of all devices, grouped by process, in the order of the processes.

    Args:
      config: defines batch, pairs, and the number of devices that share parameters.
      devices: devices to use instead of those that JAX sees.

    Raises:
      MeshError: `mesh.fsdp` does not divide the devices, or the devices do not divide the batch, or
        they do not support the configured attention.
    """
    # Each process contributes consecutive rows to a global batch, after those of the processes
    # before it (training/loop.py). So the devices must have the same order. But JAX may list a
    # slice's devices by their coordinates, so that two processes alternate. So may its mesh_utils,
    # which seeks the fastest rings. Those would only speed up the copies of parameters, a small
    # part of a step here.
    devices = sorted(
        jax.devices() if devices is None else devices,
        key=lambda device: (device.process_index, device.id),
    )
    fsdp, group = config.mesh.fsdp, config.cut_and_paste.pair_group
    kernel, platform = config.compute.attention, devices[0].platform
    if _PLATFORMS.get(kernel, platform) != platform:
        raise MeshError(
            f"compute.attention={kernel} requires {_PLATFORMS[kernel].upper()}s, but the devices "
            f"are {platform.upper()}s: use compute.attention=auto"
        )
    if len(devices) % fsdp:
        raise MeshError(
            f"mesh.fsdp={fsdp} does not divide the number of devices, {len(devices)}: use a divisor"
        )
    parts = config.compute.microbatches
    if config.batch % (len(devices) * parts * group):
        raise MeshError(
            f"batch {config.batch} must be divisible by {len(devices)} devices × "
            f"compute.microbatches {parts} × cut_and_paste.pair_group {group}"
        )
    return Mesh(np.array(devices).reshape(-1, fsdp), AXES)


def one_device() -> Mesh:
    """Return a mesh of one device, for loading a checkpoint."""
    return Mesh(np.array(jax.local_devices()[:1]).reshape(1, 1), AXES)


def partition(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return the partition of a parameter, or of the optimizer's copy of it.

    Raises:
      MeshError: no rule matches, or the devices that share the parameter do not divide its size.

    >>> tuple(partition("video.layer_1.mlp.in.kernel", (128, 512), one_device()))
    ('fsdp',)
    """
    if not shape:  # counts of steps
        return REPLICATED
    spec = next((spec for rule, spec in _RULES if re.search(rf"(^|\.){rule}$", path)), None)
    if spec is None:
        raise MeshError(f"parameter {path} matches no rule of trainer/distributed/mesh.py: add one")
    for size, axis in zip(shape, spec, strict=False):
        if axis and size % mesh.shape[axis]:
            raise MeshError(
                f"parameter {path} {shape} is not divisible by mesh.fsdp={mesh.shape[axis]}"
            )
    return spec


def shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the sharding of every parameter in a tree of arrays or shapes."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _sharding(path, leaf, mesh), tree)


def _sharding(path: Any, leaf: Any, mesh: Mesh) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return NamedSharding(mesh, partition(name, leaf.shape, mesh))


def placed_shapes(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the same shapes, each with the sharding of its parameter."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=_sharding(path, leaf, mesh)
        ),
        tree,
    )


def keep_placed(tree: PyTree, mesh: Mesh) -> PyTree:
    """Constrain arrays to the shardings of the rules; for compiled functions."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.with_sharding_constraint(leaf, _sharding(path, leaf, mesh)), tree
    )


def on_each_device(
    function: Callable[..., Any], mesh: Mesh, replicated: int = 0, *, reduces: bool = True
) -> Callable[..., Any]:
    """Return a function of all clips from a function of one device's clips.

    Args:
      function: takes and returns trees whose leaves have a leading axis of clips; may reduce over
        `AXES`.
      mesh: the devices.
      replicated: number of first arguments that are the same for all clips instead.
      reduces: False for a function that reduces over no axis. It may then call Pallas kernels,
        which do not report over which axes their results vary.
    """

    def of_all(*arguments: Any) -> Any:
        specs = (REPLICATED,) * replicated + (PER_CLIP,) * (len(arguments) - replicated)
        return jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=PER_CLIP, check_vma=reduces
        )(*arguments)

    return of_all


def own_devices() -> Mesh:
    """Return a mesh of this process's devices, which share clips and replicate the parameters."""
    return Mesh(np.array(jax.local_devices()).reshape(-1, 1), AXES)


def _identity(tree: PyTree) -> PyTree:
    # A named function: jax.jit would compile a new lambda at every call.
    return tree


def on_own_devices(params: PyTree, mesh: Mesh) -> PyTree:
    """Replicate the parameters on each of `own_devices`; all processes must call it together."""
    gathered = jax.jit(_identity, out_shardings=NamedSharding(mesh, REPLICATED))(params)
    own = own_devices()

    def here(leaf: jax.Array) -> jax.Array:
        copies = [shard.data for shard in leaf.addressable_shards]
        whole = NamedSharding(own, REPLICATED)
        return jax.make_array_from_single_device_arrays(leaf.shape, whole, copies)

    return jax.tree.map(here, gathered)


def gather_params(params: PyTree, mesh: Mesh) -> PyTree:
    """Gather the whole parameters on every device: clips stay, parameters move to them."""
    return jax.lax.with_sharding_constraint(params, NamedSharding(mesh, REPLICATED))
