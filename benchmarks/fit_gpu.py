"""Plan presets for NVIDIA GPUs: memory and roofline speed, in benchmarks/results/fit_gpu.json.

Compiles for GPUs that are not there, which takes JAX's plugin for CUDA and minutes a row: `make
fit`, or this program with the rows to do again, PRESET@TOPOLOGY.
"""

import argparse
import importlib.metadata
import json
import pathlib
from typing import Any

from trainer.configs import PRESETS
from trainer.plan.plan import DoesNotFit, make_plan
from trainer.plan.text import as_json

_GPUS = ("a10", "l4", "rtx4090", "a100-40", "a100-80", "h100")
ROWS = (*(f"small@{gpu}:1" for gpu in _GPUS), *(f"base-16@{gpu}:8" for gpu in _GPUS))
KEPT = (
    "policy",
    "memory_bytes",
    "flops",
    "executed_flops",
    "traffic_bytes_a_device",
    "roofline_seconds",
    "utilisation",
    "clips_per_second",
)
RESULTS = pathlib.Path(__file__).parent / "results" / "fit_gpu.json"


def plan(row: str) -> dict[str, Any]:
    """Return the published fields of a row's plan, or the missing memory."""
    preset, _, topology = row.partition("@")
    try:
        planned = as_json(make_plan(PRESETS[preset], topology))
    except DoesNotFit as error:
        needs = {"needed": error.needed, "available": error.available}
        return {"fits": False, "memory_bytes": needs}
    return {"fits": True} | {name: planned[name] for name in KEPT}


def line(row: str, found: dict[str, Any]) -> str:
    """Return a row of the table in docs/howto/hardware.md."""
    memory = found["memory_bytes"]
    needed, available = (memory[name] / 2**30 for name in ("needed", "available"))
    preset, _, topology = row.partition("@")
    start = f"| {preset} | {topology} | {needed:.1f} of {available:.1f} "
    if not found["fits"]:
        return f"{start}| does not fit | | |"
    return (
        f"{start}| {found['roofline_seconds']['step']:.2f} s | {found['clips_per_second']:,.0f} "
        f"| {100 * found['utilisation']:.0f} % |"
    )


def main() -> None:
    """Compiles, merges the rows into the results, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=ROWS, metavar="PRESET@TOPOLOGY")
    arguments = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jax-cuda12-plugin")}
    for row in arguments.rows:
        found = plan(row) | {"versions": versions}
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(known | {row: found}, indent=2) + "\n")
        print(line(row, found), flush=True)


if __name__ == "__main__":
    main()
