"""The cheapest way to compute a step that fits a topology's memory."""

from collections.abc import Callable

from trainer.configs.config import Config
from trainer.configs.overrides import override
from trainer.plan.plan import DoesNotFit, Plan, PlanError, make_plan

# How a step may be computed, from the cheapest to the dearest: what layers compute again for the
# backward pass, then parameters cut up over devices, then clips encoded a second time in parts.
POLICIES: tuple[tuple[str, ...], ...] = (
    ("compute.remat=none",),
    ("compute.remat=matmuls",),
    ("compute.remat=attention",),
    ("compute.remat=block",),
    ("compute.remat=block", "mesh.fsdp=4"),
    ("compute.remat=attention", "compute.microbatches=2"),
    ("compute.remat=attention", "compute.microbatches=4"),
    ("compute.remat=attention", "compute.microbatches=8", "mesh.fsdp=4"),
)


def search(
    config: Config, topology: str, clips: int | None, headroom: int, show: Callable[[str], None]
) -> Plan:
    """Compiles with one policy after the other until one fits.

    Args:
      config: the run's; a policy overrides how it is computed.
      topology: as `make_plan` takes it.
      clips: in the run's snapshot.
      headroom: bytes that must be left on a device.
      show: is told of each policy that does not fit.

    Raises:
      PlanError: none fits; the message has the smallest need.
    """
    needs = []
    for settings in POLICIES:
        try:
            plan = make_plan(override(config, settings), topology, clips)
            if plan.memory.spare >= headroom:
                return plan
            needs.append(plan.memory.needed)
        except DoesNotFit as error:
            needs.append(error.needed)
        show(f"{' '.join(settings)}: {needs[-1] / 2**30:.2f} GiB")
    raise PlanError(
        f"no policy fits {topology} with {headroom / 2**30:.2f} GiB to spare: the one that needs "
        f"least takes {min(needs) / 2**30:.2f} GiB; use more chips or a smaller --set batch=…"
    )
