"""The plan of a run's training step on a topology: memory, FLOPs, traffic and time."""

import dataclasses
import re
import time
from typing import Any

import jax

from trainer.configs.config import Config
from trainer.data import order
from trainer.distributed import gpus
from trainer.distributed.flops import step_flops
from trainer.distributed.hardware import HERE, Chip, chip, devices_of, usable_memory
from trainer.distributed.mesh import make_mesh
from trainer.errors import UserError
from trainer.method.models.attention import Kind, choose
from trainer.method.run_scalars import compiled_config, run_scalars
from trainer.method.train_step import batch_shapes, state_shapes, train_step
from trainer.plan.collectives import UNEXPLAINED, Crossing, crossings
from trainer.plan.hlo import Program
from trainer.plan.jaxpr_flops import executed_flops, kernel_flops

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class PlanError(UserError, RuntimeError):
    """A step that cannot be planned, or does not fit."""


class DoesNotFit(PlanError):  # noqa: N818  # it is a finding
    """A step that needs more memory than a chip has.

    Attributes:
      needed: bytes, as far as the compiler got: of temporaries alone if these are too large.
      available: bytes.
    """

    def __init__(self, needed: int, available: int, what: str) -> None:
        super().__init__(
            f"{what} needs {needed / 2**30:.2f} GiB, but a device has {available / 2**30:.2f}: "
            "use --search, more devices, or a smaller --set batch=…"
        )
        self.needed, self.available = needed, available


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    arguments: int  # parameters, optimizer state, batch
    outputs: int  # outputs that do not reuse an argument's memory
    temporaries: int
    code: int
    kernels: int  # estimated temporaries that the compiler does not count
    available: int

    @property
    def needed(self) -> int:
        """The total of all parts, bytes."""
        return self.arguments + self.outputs + self.temporaries + self.code + self.kernels

    @property
    def spare(self) -> int:
        """The bytes left. Negative if the step does not fit."""
        return self.available - self.needed


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The minimum seconds of a step at the chips' published rates.

    Products and memory traffic overlap, so the slower of the two counts. Two assumptions are
    conservative. Links start only when both have ended, and only half of the links is used, as on a
    slice without wrapped axes.
    """

    products: float
    memory: float
    links: float

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return max(self.products, self.memory) + self.links


@dataclasses.dataclass(frozen=True)
class Plan:
    """A compiled step, and the run that repeats it."""

    topology: str
    devices: int
    device: str
    config: Config
    attention: Kind  # the kind that `auto` selects on these devices
    memory: Memory
    flops: int  # of a step, analytical (trainer/distributed/flops.py), without recomputation
    executed_flops: int  # of a step's matrix products, with recomputation
    # The compiler's count of all operations on one device. It counts a loop's body once and kernels
    # not at all. None: no count, as by CUDA's compiler for GPUs that are absent.
    compiler_flops: float | None
    kernel_flops: int  # of a step, in Pallas and cuDNN kernels
    bytes: int  # memory traffic of a step on one device
    crossings: tuple[Crossing, ...]
    compile_seconds: float
    steps: int | None  # of the whole run; None: the number of clips is unknown

    @property
    def chip(self) -> Chip | None:
        """The published data of the device. None if it is unknown."""
        return chip(self.device)

    @property
    def counted_flops(self) -> float | None:
        """FLOPs of a step by the compiler's count, plus kernels as traced. None without a count.

        The sum is complete for a program without loops.
        """
        if self.compiler_flops is None:
            return None
        return self.compiler_flops * self.devices + self.kernel_flops

    @property
    def keeps_video(self) -> bool:
        """True if every collective is explained: no pixel or video token crosses devices."""
        return all(one.content != UNEXPLAINED for one in self.crossings)

    @property
    def roofline(self) -> Roofline | None:
        """The roofline of the step. None if the device's rates are unknown."""
        if self.chip is None:
            return None
        sent = sum(one.collective.sent * one.collective.times for one in self.crossings)
        links = self.chip.links
        if self.devices > gpus.HOST and self.chip.network:
            links = self.chip.network
        return Roofline(
            products=self.executed_flops / self.devices / self.chip.flops,
            memory=self.bytes / self.chip.bandwidth,
            links=sent / (links / 2),
        )

    @property
    def utilisation(self) -> float | None:
        """The model FLOPs utilisation (MFU): the analytical FLOPs as a share of the chips' peak.

        None if the device's rates are unknown.
        """
        if self.chip is None or self.roofline is None:
            return None
        return self.flops / (self.roofline.step * self.devices * self.chip.flops)

    @property
    def hours(self) -> float | None:
        """Hours of all steps of the run by the roofline, without input, evaluation and checkpoints.

        None if the device's rates or the number of clips are unknown.
        """
        if self.roofline is None or self.steps is None:
            return None
        return self.steps * self.roofline.step / 3600


def make_plan(config: Config, topology: str, clips: int | None = None) -> Plan:
    """Compile the step for a topology.

    Args:
      config: the configuration of the run.
      topology: "here" for the devices that JAX sees, a TPU slice such as "v5e:8x8", or GPUs such as
        "h100:8".
      clips: the number of clips in the run's snapshot, for the number of steps. None: unknown.

    Raises:
      DoesNotFit: the step needs more memory than a device has.
      TopologyError: the topology or its memory is unknown, or its compiler is not installed.
      MeshError: the batch or `mesh.fsdp` is not divisible by the devices.
      PlanError: there are fewer clips than a batch has, or the step cannot be compiled.
    """
    devices = devices_of(topology)
    mesh, available = make_mesh(config, devices), usable_memory(devices[0])
    try:
        steps = clips and order.total_steps(clips, config.batch, config.epochs, config.max_steps)
    except ValueError as error:
        raise PlanError(str(error)) from None
    state, batch = state_shapes(config, mesh), batch_shapes(config, mesh)
    scalars = run_scalars(config, steps or 1)  # the program does not depend on their values
    traced = train_step.trace(state, batch, scalars, config=compiled_config(config), mesh=mesh)
    attention = choose(config.video, config.compute, devices[0].platform)
    kernels = 0 if topology == HERE else _workspace(config, attention, len(devices))
    began = time.monotonic()
    compiled, memory = _compile(
        traced.lower(),
        kernels,
        available,
        f"{topology}: a step of batch {config.batch} on {len(devices)} devices",
    )
    took = time.monotonic() - began
    program = Program(compiled.as_text())
    return Plan(
        topology=topology,
        devices=len(devices),
        device=devices[0].device_kind,
        config=config,
        attention=attention,
        memory=memory,
        flops=step_flops(config),
        executed_flops=executed_flops(traced.jaxpr),
        compiler_flops=(compiled.cost_analysis() or {}).get("flops"),
        kernel_flops=kernel_flops(traced.jaxpr),
        bytes=program.memory_traffic(),
        crossings=tuple(crossings(program.collectives(), config, state.params, mesh)),
        compile_seconds=took,
        steps=steps,
    )


def _workspace(config: Config, attention: Kind, devices: int) -> int:
    """Return the bytes that cuDNN's workspace takes on a device, estimated where GPUs are absent.

    Its backward kernel sums the queries' gradients in float32, for one layer at a time.

    >>> _workspace(Config(batch=8), "cudnn", devices=2) == 4 * 3168 * 768 * 4
    True
    """
    if attention != "cudnn":
        return 0
    video = config.video
    clips = config.batch // devices // config.compute.microbatches
    return clips * video.sequence * video.width * 4


def _compile(lowered: Any, kernels: int, available: int, what: str) -> tuple[Any, Memory]:
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        if "RESOURCE_EXHAUSTED" not in message:
            raise
        if re.search("memory space (vmem|smem)", message):  # a kernel's, whatever the batch
            raise PlanError(f"{what} has a kernel that does not compile: {message[:500]}") from None
        raise DoesNotFit(_needed(message), available, what) from None
    # The TPU compiler refuses by itself, so this check is for the others.
    memory = _memory(compiled.memory_analysis(), kernels, available)
    if memory.spare < 0:
        raise DoesNotFit(memory.needed, available, what)
    return compiled, memory


def _needed(message: str) -> int:
    """Parse the bytes of device memory that a program needs from either message of libtpu.

    >>> _needed("memory required for HLO temporaries (1.50G) exceeds available HBM (1.00G)") / 2**30
    1.5
    >>> _needed("Ran out of memory in memory space hbm. Used 52.5G of 15.75G hbm.") / 2**30
    52.5
    """
    match = re.search(r"(?:temporaries \(|Used )([0-9.]+)([KMGT])\b", message)
    if match is None:
        raise PlanError(f"libtpu rejects the step without giving its size: {message[:500]}")
    return int(float(match[1]) * _UNITS[match[2]])


def _memory(analysis: Any, kernels: int, available: int) -> Memory:
    return Memory(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
        kernels=kernels,
        available=available,
    )
