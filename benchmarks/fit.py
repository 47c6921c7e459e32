"""How the paper's step fits TPU slices, and what its run would take: benchmarks/results/fit.json.

Compiles for slices that are not there, which takes libtpu and minutes a slice: `make fit`, or this
program with the names of the slices to do again.
"""

import argparse
import importlib.metadata
import json
import pathlib
from typing import Any

from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.plan.plan import make_plan
from trainer.plan.text import as_json

POLICIES = {
    "v5e:4x4": ("compute.remat=attention", "compute.microbatches=2"),
    "v5e:8x8": ("compute.remat=block",),
    "v5p:2x4x4": ("compute.remat=none",),
}
CLIPS = 3_300_000  # of VideoCC, for 10 epochs
RESULTS = pathlib.Path(__file__).parent / "results" / "fit.json"


def row(topology: str, plan: dict[str, Any]) -> str:
    """Return a row of the table in docs/howto/hardware.md."""
    memory = plan["memory_bytes"]
    needed, available = (memory[name] / 2**30 for name in ("needed", "available"))
    return (
        f"| {topology} | `{' '.join(POLICIES[topology])}` | {needed:.1f} of {available:.1f} "
        f"| {plan['executed_flops'] / plan['flops']:.2f}× "
        f"| {plan['roofline_seconds']['step']:.2f} s | {100 * plan['utilisation']:.0f} % "
        f"| {plan['hours']:.1f} |"
    )


def main() -> None:
    """Compiles, merges the plans into the results, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topologies", nargs="*", default=list(POLICIES), metavar="TOPOLOGY")
    arguments = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    for topology in arguments.topologies:
        config = override(PRESETS["paper"], POLICIES[topology])
        plan = as_json(make_plan(config, topology, CLIPS)) | {"versions": versions}
        plans = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(plans | {topology: plan}, indent=2) + "\n")
        print(row(topology, plan), flush=True)


if __name__ == "__main__":
    main()
