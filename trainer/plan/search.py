"""A search for the cheapest way to compute a step that fits a topology's memory."""

from collections.abc import Callable

from trainer.configs.config import Config
from trainer.configs.overrides import override
from trainer.plan.plan import DoesNotFit, Plan, PlanError, make_plan

# Ways to compute a step, from the cheapest to the most expensive. First layers recompute for the
# backward pass, then devices share parameters, then microbatches encode clips a second time.
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
    """Compile the step with one policy after another until one fits, and return its plan.

    Args:
      config: the configuration of the run. A policy overrides how its step is computed.
      topology: as for `make_plan`.
      clips: the number of clips in the run's snapshot. None: unknown.
      headroom: bytes that must be left on a device.
      show: called with a description of each policy that does not fit.

    Raises:
      PlanError: no policy fits. The message gives the smallest need.
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
        f"no policy fits {topology} with {headroom / 2**30:.2f} GiB of headroom: the smallest "
        f"needs {min(needs) / 2**30:.2f} GiB; use more chips or a smaller --set batch=…"
    )
