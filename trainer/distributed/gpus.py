"""NVIDIA GPUs that programs can be compiled for without one: their properties, by name.

Rates are those of NVIDIA's data sheets and architecture papers. Rates of bfloat16 products are
dense. Some sheets print rates with sparsity, which are twice as high. Link rates are for one
direction, where the sheets print both. Memory is the amount that CUDA reports, less than
the sheets' round numbers.
"""

import dataclasses
import os
import re

_GIB = 2**30
_PCIE = 32e9  # bytes per second of 16 lanes of generation 4, in one direction

HOST = 8
"""Maximum number of GPUs in one host."""

_MOST = 1024


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Properties of a kind of GPU: its rates, and the values that CUDA's compiler needs."""

    kind: str  # JAX's device_kind
    label: str
    memory: int  # bytes
    flops: float  # peak dense bfloat16 rate, FLOP per second
    bandwidth: float  # of its memory, bytes per second
    links: float  # to other GPUs of its host, bytes per second in one direction
    network: float | None  # to other hosts in NVIDIA's DGX, same unit; None: single host
    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    cache: int  # level-2 cache, bytes
    clock: float  # GHz


def _a100(memory: int, bandwidth: float) -> Gpu:
    size = "80GB" if memory > 40 * _GIB else "40GB"
    return Gpu(
        kind=f"NVIDIA A100-SXM4-{size}",
        label=f"A100 {size[:2]} GB",
        memory=memory,
        flops=312e12,
        bandwidth=bandwidth,
        links=300e9,
        network=25e9,
        capability=(8, 0),
        cores=108,
        cache=40 * 2**20,
        clock=1.41,
    )


def _hopper(kind: str, label: str, memory: int, bandwidth: float) -> Gpu:
    return Gpu(
        kind=kind,
        label=label,
        memory=memory,
        flops=989e12,
        bandwidth=bandwidth,
        links=450e9,
        network=50e9,
        capability=(9, 0),
        cores=132,
        cache=50 * 2**20,
        clock=1.98,
    )


GPUS = {
    "a10": Gpu(
        kind="NVIDIA A10",
        label="A10",
        memory=int(22.0 * _GIB),
        flops=125e12,
        bandwidth=600e9,
        links=_PCIE,
        network=None,
        capability=(8, 6),
        cores=72,
        cache=6 * 2**20,
        clock=1.695,
    ),
    "l4": Gpu(
        kind="NVIDIA L4",
        label="L4",
        memory=int(22.03 * _GIB),
        flops=121e12,
        bandwidth=300e9,
        links=_PCIE,
        network=None,
        capability=(8, 9),
        cores=58,
        cache=48 * 2**20,
        clock=2.04,
    ),
    "rtx4090": Gpu(
        kind="NVIDIA GeForce RTX 4090",
        label="RTX 4090",
        memory=int(23.5 * _GIB),
        flops=165.2e12,
        bandwidth=1008e9,
        links=_PCIE,
        network=None,
        capability=(8, 9),
        cores=128,
        cache=72 * 2**20,
        clock=2.52,
    ),
    "a100-40": _a100(42_298_834_944, 1555e9),
    "a100-80": _a100(85_100_068_864, 2039e9),
    "h100": _hopper("NVIDIA H100 80GB HBM3", "H100", 84_942_979_072, 3350e9),
    "h200": _hopper("NVIDIA H200", "H200", 151_397_597_184, 4800e9),
}
"""GPUs by their name in a topology. A100, H100 and H200 are those with NVLink (SXM)."""

KNOWN = "NAME:COUNT of " + ", ".join(GPUS)
"""Format of a topology of GPUs, for messages."""

# Threads, bytes of shared memory and float32 units of a core (a streaming multiprocessor), by
# compute capability. Source: CUDA's programming guide, "Compute Capabilities".
_CORES = {
    (8, 0): (2048, 164 * 1024, 64),
    (8, 6): (1536, 100 * 1024, 128),
    (8, 9): (1536, 100 * 1024, 128),
    (9, 0): (2048, 228 * 1024, 128),
}


class GpuError(ValueError):
    """An unknown name or an unsupported number of GPUs."""


def parse(topology: str) -> tuple[Gpu, int] | None:
    """Return a topology's GPU and the number of GPUs; None if it names no GPU.

    Raises:
      GpuError: the topology starts with a GPU's name, but its number of GPUs is not supported.

    >>> gpu, count = parse("a100-40:8")
    >>> gpu.label, count
    ('A100 40 GB', 8)
    >>> parse("v5e:8x8")
    """
    name, colon, count = topology.partition(":")
    if name in ("a100", "a100-sxm4"):
        raise GpuError(f"{topology}: an A100 has 40 or 80 GB: give a100-40:8 or a100-80:8")
    if name not in GPUS:
        return None
    gpu = GPUS[name]
    if not colon or not re.fullmatch(r"[0-9]{1,9}", count):
        raise GpuError(
            f"{topology} has no number of GPUs: give {name}:1, or {name}:{HOST} for one host"
        )
    number = int(count)
    more = number % HOST == 0 and number <= _MOST if gpu.network else False
    if number < 1 or (number > HOST and not more):
        hosts, why = f", or a multiple of {HOST} up to {_MOST}", ""
        if gpu.network is None:
            hosts, why = "", ": the network of such hosts is unknown"
        raise GpuError(f"{topology}: the number of GPUs must be 1 to {HOST}{hosts}{why}")
    return gpu, number


def memory_fraction() -> float:
    """Return the fraction of a GPU's memory that JAX lets programs allocate.

    Raises:
      GpuError: XLA_PYTHON_CLIENT_MEM_FRACTION is not a fraction.
    """
    said = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or "0.75"
    try:
        value = float(said)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise GpuError(
            f"XLA_PYTHON_CLIENT_MEM_FRACTION={said!r} is not a fraction: give one above 0 and at "
            "most 1"
        )
    return value


def usable_memory(kind: str) -> int | None:
    """Return the bytes that JAX lets a program allocate on a kind of GPU; None if not listed."""
    return next(
        (int(gpu.memory * memory_fraction()) for gpu in GPUS.values() if gpu.kind == kind), None
    )


def target(gpu: Gpu) -> str:
    """Return XLA's description of an absent GPU for its compiler (GpuTargetConfigProto)."""
    threads, shared, units = _CORES[gpu.capability]
    major, minor = gpu.capability
    return f"""
        platform_name: "CUDA"
        device_description_str: "{gpu.kind}"
        dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
        gpu_device_info {{
          name: "{gpu.kind}"
          device_vendor: "NVIDIA Corporation"
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          core_count: {gpu.cores}
          fpus_per_core: {units}
          threads_per_core_limit: {threads}
          shared_memory_per_core: {shared}
          shared_memory_per_block_optin: {shared - 1024}
          shared_memory_per_block: 49152
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          threads_per_block_limit: 1024
          threads_per_warp: 32
          thread_dim_limit_x: 1024
          thread_dim_limit_y: 1024
          thread_dim_limit_z: 64
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          l2_cache_size: {gpu.cache}
          clock_rate_ghz: {gpu.clock}
          device_memory_size: {gpu.memory}
          memory_bandwidth: {int(gpu.bandwidth)}
          dnn_version: "9.10.0"
          driver_version: "12.8.0"
          runtime_version: "12.8.0"
          compile_time_toolkit_version: "12.8.0"
        }}
    """
