"""Chips that a run may be for, and what is known of them: TPU slices by name, GPUs by kind.

`jax.devices()` tells what is here; libtpu, the package behind `jax[tpu]`, describes TPU slices
that are not, so that programs can be compiled for them.
"""

import dataclasses
import os
from typing import Any

import jax
from jax.experimental import topologies

HERE = "here"
"""The topology of the devices that JAX sees."""

KNOWN = (
    "v4:2x2x1 … 8x8x8, v5e:2x2 2x4 4x4 4x8 8x8 8x16 16x16, v5p:2x2x1 2x2x2 2x4x4 4x4x4 …, "
    "v6e:2x2 … 16x16, tpu7x:2x2x1 2x2x2 …"
)
"""Names of TPU slices, for messages."""

_GIB = 2**30


class TopologyError(ValueError):
    """A topology that has no such name, or that cannot be described here."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one JAX device has: a chip, or one of a chip's two cores (v4, tpu7x)."""

    name: str
    memory: int | None  # bytes that a program may use; None: the device tells
    flops: float  # of dense bfloat16 products, a second
    bandwidth: float  # of its memory, bytes a second
    links: float  # to other chips, all links together, bytes a second in one direction


# By JAX's device_kind. TPUs: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, where interconnect
# is given for both directions or in Gbit/s; memory, a little below theirs, is libtpu's own limit.
# GPUs: NVIDIA's data sheets, dense bfloat16, NVLink.
CHIPS = {
    "TPU v4": Chip("v4 core", int(15.25 * _GIB), 137.5e12, 614e9, 150e9),
    "TPU v5 lite": Chip("v5e", int(15.75 * _GIB), 197e12, 819e9, 200e9),
    "TPU v5": Chip("v5p", int(95.74 * _GIB), 459e12, 2765e9, 600e9),
    "TPU v6 lite": Chip("v6e", int(31.25 * _GIB), 918e12, 1638e9, 400e9),
    "TPU7x": Chip("tpu7x core", int(94.75 * _GIB), 1153e12, 3690e9, 300e9),
    "NVIDIA A100-SXM4-40GB": Chip("A100 40 GB", None, 312e12, 1555e9, 300e9),
    "NVIDIA A100-SXM4-80GB": Chip("A100 80 GB", None, 312e12, 2039e9, 300e9),
    "NVIDIA H100 80GB HBM3": Chip("H100", None, 989e12, 3350e9, 450e9),
    "NVIDIA H200": Chip("H200", None, 989e12, 4800e9, 450e9),
}


def chip(kind: str) -> Chip | None:
    """What is known of a `device_kind`; None of processors and of chips that are not listed.

    >>> chip("TPU v5 lite").name
    'v5e'
    """
    return CHIPS.get(kind)


def usable_memory(device: Any) -> int:
    """Bytes that a program may use on a device.

    Of a GPU, what JAX may allocate; of a processor, its share of the machine's memory.

    Raises:
      TopologyError: nothing is known of the device.
    """
    if device.platform == "cpu":
        pages = os.sysconf("SC_PHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    if device.platform == "gpu":
        return device.memory_stats()["bytes_limit"]
    if (known := chip(device.device_kind)) is None or known.memory is None:
        raise TopologyError(f"{device.device_kind} is not in trainer/topologies.py: add it")
    return known.memory


def devices_of(topology: str) -> list[Any]:
    """The devices of a TPU slice that need not be there, or with `here` those that are.

    A slice's devices can be compiled for, and nothing else. Call it before JAX is used: of an
    absent slice, this machine's processor is all that JAX then looks for.

    Raises:
      TopologyError: libtpu is not installed, or knows no such slice.
    """
    if topology == HERE:
        return jax.devices()
    # libtpu asks the machine which TPU it is, unless told, and serves one process, which has it.
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
    except Exception as error:  # libtpu's is a JaxRuntimeError, without libtpu it is another
        if not has_libtpu():
            raise TopologyError(
                f"compiling for {topology} needs libtpu: pip install -c constraints.txt "
                f"'.[trainer,tpu]' from the sources, or use --topology {HERE}"
            ) from None
        raise TopologyError(
            f"there is no topology {topology!r} ({' '.join(str(error).split())}): use {HERE}, or "
            f"a TPU slice: {KNOWN}"
        ) from None


def has_libtpu() -> bool:
    """Whether programs for TPUs can be compiled here."""
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return False
    return True
