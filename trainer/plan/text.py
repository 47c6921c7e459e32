"""Plans as text for the terminal and as JSON."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

from trainer.plan.collectives import Crossing
from trainer.plan.plan import Plan

_GIB = 2**30
_SHOWN = 3  # maximum operands shown of a collective


def describe(plan: Plan) -> str:
    """Return a plan as several lines for the terminal."""
    return "\n".join(_lines(plan))


def policy(plan: Plan) -> str:
    """Return how a step is computed, as settings of the run."""
    compute = plan.config.compute
    return (
        f"compute.dtype={compute.dtype} compute.attention={plan.attention} "
        f"compute.remat={compute.remat} compute.microbatches={compute.microbatches} "
        f"mesh.fsdp={plan.config.mesh.fsdp}"
    )


def _lines(plan: Plan) -> Iterator[str]:
    name = plan.chip.name if plan.chip else plan.device
    memory = plan.memory
    yield f"plan: {plan.topology}, {plan.devices} × {name}, batch {plan.config.batch}"
    yield f"policy     {policy(plan)}"
    yield (
        f"memory     {_gib(memory.needed)} of {_gib(memory.available)} GiB per device: "
        + ", ".join(
            f"{_gib(size)} {what}"
            for what, size in (
                ("arguments", memory.arguments),
                ("temporaries", memory.temporaries),
                ("outputs", memory.outputs),
                ("code", memory.code),
                ("cuDNN workspace (estimated)", memory.kernels),
            )
            if size or what != "cuDNN workspace (estimated)"
        )
    )
    again = plan.executed_flops / plan.flops
    yield (
        f"FLOPs      {plan.flops:.3g} per step (analytic), {again:.2f} × that in matrix products "
        "with recomputation"
    )
    if plan.counted_flops is not None:
        yield (
            f"           {plan.counted_flops / plan.flops:.2f} × by the compiler and its kernels: "
            "all operations, a loop's body once"
        )
    yield f"traffic    {plan.bytes / 1e9:.3g} GB of memory per device and step"
    yield from _crossings(plan)
    if (roofline := plan.roofline) is None:
        yield f"roofline   unknown, as are the rates of {plan.device!r}"
    else:
        yield (
            f"roofline   at least {roofline.step:.3f} s per step: products "
            f"{roofline.products:.3f}, memory {roofline.memory:.3f}, links {roofline.links:.3f}; "
            f"utilisation {plan.utilisation:.0%}, {plan.config.batch / roofline.step:,.0f} clips/s"
        )
    if plan.steps is not None:
        hours = "" if plan.hours is None else f": at least {plan.hours:.1f} hours"
        yield f"run        {plan.steps} steps in {plan.config.epochs} epochs{hours}"


def _crossings(plan: Plan) -> Iterator[str]:
    if not plan.crossings:
        yield "sent       nothing"
        return
    sent: collections.Counter[str] = collections.Counter()
    for one in plan.crossings:
        sent[one.content] += round(one.collective.sent * one.collective.times)
    yield "sent       " + ", ".join(f"{size / 1e9:.3g} GB of {what}" for what, size in sent.items())
    for one in plan.crossings:
        yield f"           {_collective(one)}"
    yield "           " + (
        "each collective is explained: no pixel and no video token crosses devices"
        if plan.keeps_video
        else "unexplained collectives may contain pixels or video tokens"
    )


def _collective(one: Crossing) -> str:
    operands = [str(shape) for shape in one.collective.operands]
    more = [f"… {len(operands) - _SHOWN} more"] if len(operands) > _SHOWN else []
    times = f" × {one.collective.times}" if one.collective.times > 1 else ""
    return (
        f"{one.collective.kind}{times} among {one.collective.devices}, {one.content}: "
        f"{', '.join(operands[:_SHOWN] + more)}"
    )


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f}"


def as_json(plan: Plan) -> dict[str, Any]:
    """Return all of a plan as a JSON object."""
    return {
        "topology": plan.topology,
        "devices": plan.devices,
        "device": plan.device,
        "batch": plan.config.batch,
        "policy": policy(plan),
        "memory_bytes": dataclasses.asdict(plan.memory)
        | {"needed": plan.memory.needed, "spare": plan.memory.spare},
        "flops": plan.flops,
        "executed_flops": plan.executed_flops,
        "compiler_flops_a_device": plan.compiler_flops,
        "kernel_flops": plan.kernel_flops,
        "counted_to_flops": plan.counted_flops and plan.counted_flops / plan.flops,
        "traffic_bytes_a_device": plan.bytes,
        "collectives": [
            {
                "kind": one.collective.kind,
                "content": one.content,
                "operands": [str(shape) for shape in one.collective.operands],
                "bytes": one.collective.bytes,
                "devices": one.collective.devices,
                "times": one.collective.times,
            }
            for one in plan.crossings
        ],
        "no_pixel_or_video_token_crosses": plan.keeps_video,
        "roofline_seconds": plan.roofline
        and dataclasses.asdict(plan.roofline) | {"step": plan.roofline.step},
        "clips_per_second": plan.roofline and plan.config.batch / plan.roofline.step,
        "utilisation": plan.utilisation,
        "steps": plan.steps,
        "hours": plan.hours,
        "compile_seconds": round(plan.compile_seconds, 1),
        "config": dataclasses.asdict(plan.config),
    }
