"""Properties of the chips that a run may use: TPU slices and GPUs, by name.

`jax.devices()` returns the devices of this machine. Programs can be compiled for absent devices
too: libtpu, the package behind `jax[tpu]`, describes TPU slices. JAX's plugin for CUDA
(`jax[cuda12]`) compiles for any GPU whose properties it gets (trainer/distributed/gpus.py).
"""

import dataclasses
import importlib.util
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from trainer.distributed import gpus
from trainer.errors import UserError

HERE = "here"
"""Topology name of the devices that JAX sees."""

KNOWN = (
    "v4:2x2x1 … 8x8x8, v5e:2x2 2x4 4x4 4x8 8x8 8x16 16x16, v5p:2x2x1 2x2x2 2x4x4 4x4x4 …, "
    "v6e:2x2 … 16x16, tpu7x:2x2x1 2x2x2 …"
)
"""Names of TPU slices, for messages."""

_TPUS = re.compile(r"(v[0-9]+[a-z]*|tpu[0-9]+[a-z]*):[0-9]+(x[0-9]+){1,2}")

_GIB = 2**30


class TopologyError(UserError, ValueError):
    """An unknown topology, or one that cannot be described on this machine."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """Properties of one JAX device: a chip, or one of a chip's two cores (v4, tpu7x)."""

    name: str
    memory: int | None  # bytes that a program may use; None: ask the device
    flops: float  # peak dense bfloat16 rate, FLOP per second
    bandwidth: float  # of its memory, bytes per second
    links: float  # to other chips, all links together, bytes per second in one direction
    network: float | None = None  # GPUs only: to other hosts, same unit; None: unknown


# By JAX's device_kind. TPUs: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, which gives
# interconnect rates for both directions or in Gbit/s. The memory is libtpu's own limit, slightly
# below the documented size.
CHIPS = {
    "TPU v4": Chip("v4 core", int(15.25 * _GIB), 137.5e12, 614e9, 150e9),
    "TPU v5 lite": Chip("v5e", int(15.75 * _GIB), 197e12, 819e9, 200e9),
    "TPU v5": Chip("v5p", int(95.74 * _GIB), 459e12, 2765e9, 600e9),
    "TPU v6 lite": Chip("v6e", int(31.25 * _GIB), 918e12, 1638e9, 400e9),
    "TPU7x": Chip("tpu7x core", int(94.75 * _GIB), 1153e12, 3690e9, 300e9),
    **{
        gpu.kind: Chip(gpu.label, None, gpu.flops, gpu.bandwidth, gpu.links, gpu.network)
        for gpu in gpus.GPUS.values()
    },
}


def chip(kind: str) -> Chip | None:
    """Return the properties of a `device_kind`; None for processors and for unlisted chips.

    >>> chip("TPU v5 lite").name
    'v5e'
    """
    return CHIPS.get(kind)


def usable_memory(device: Any) -> int:
    """Return the bytes that a program may use on a device.

    For a GPU, this is the amount that JAX may allocate. For an absent GPU, it is the amount by the
    settings of this machine. For a processor, it is its share of the machine's memory.

    Raises:
      TopologyError: the device is not listed.
    """
    if device.platform == "cpu":
        pages = os.sysconf("SC_PHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    if device.platform == "gpu":
        if device in jax.devices():
            return device.memory_stats()["bytes_limit"]
        try:
            usable = gpus.usable_memory(device.device_kind)
        except gpus.GpuError as error:
            raise TopologyError(str(error)) from None
    else:
        known = chip(device.device_kind)
        usable = known and known.memory
    if usable is None:
        raise TopologyError(
            f"{device.device_kind} has no entry in trainer/distributed/hardware.py: add it"
        )
    return usable


def devices_of(topology: str) -> list[Any]:
    """Return the devices of a TPU slice or of GPUs, present or not; `here` returns those present.

    Absent devices can only be compiled for. Call this function before JAX is used. For an absent
    topology, it limits JAX to this machine's processor.

    Raises:
      TopologyError: the topology is unknown, or the package that describes it is not installed.
    """
    if topology == HERE:
        return jax.devices()
    try:
        named = gpus.parse(topology)
    except gpus.GpuError as error:
        raise TopologyError(str(error)) from None
    if named:
        return _gpus(topology, *named)
    if not _TPUS.fullmatch(topology):
        raise TopologyError(
            f"topology {topology!r} is unknown: give {HERE}, a TPU slice ({KNOWN}), or GPUs "
            f"({gpus.KNOWN})"
        )
    return _slice(topology)


def _gpus(topology: str, gpu: gpus.Gpu, number: int) -> list[Any]:
    jax.config.update("jax_platforms", "cpu")
    hosts, each = max(number // gpus.HOST, 1), min(number, gpus.HOST)
    try:
        return list(
            topologies.get_topology_desc(
                platform="cuda", topology=f"1x{hosts}x{each}", target_config=gpus.target(gpu)
            ).devices
        )
    except Exception as error:  # NotImplementedError without the plugin, JAX's own error with it
        if not has_cuda():
            raise TopologyError(
                f"compiling for {topology} requires JAX's plugin for CUDA, but no GPU: run pip "
                "install -c constraints.txt '.[trainer,cuda]' in svilm's sources, or give "
                f"--topology {HERE}"
            ) from None
        raise TopologyError(
            f"JAX's plugin for CUDA rejects {topology!r} ({' '.join(str(error).split())})"
        ) from None


def _slice(topology: str) -> list[Any]:
    # Without these settings libtpu queries the machine for its TPU, and serves only one process.
    for name, value in (
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
    ):
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # a JaxRuntimeError from libtpu, another error without libtpu
        if not has_libtpu():
            raise TopologyError(
                f"compiling for {topology} requires libtpu: run pip install -c constraints.txt "
                f"'.[trainer,tpu]' in svilm's sources, or give --topology {HERE}"
            ) from None
        raise TopologyError(
            f"topology {topology!r} is unknown ({' '.join(str(error).split())}): give {HERE}, or "
            f"a TPU slice: {KNOWN}"
        ) from None


def has_libtpu() -> bool:
    """Return whether programs for TPUs can be compiled here."""
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return False
    return True


def has_cuda() -> bool:
    """Return whether programs for NVIDIA GPUs can be compiled here."""
    return importlib.util.find_spec("jax_cuda12_plugin") is not None
