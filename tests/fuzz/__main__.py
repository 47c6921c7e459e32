"""Fuzz the readers of untrusted files: `make fuzz`.

One process per family of targets (the other modules of this package) tries mutated inputs, up to a
number of seconds or inputs. OUT/<family>/ receives inputs that show a fault, with the traceback.

    python -m tests.fuzz annotations predictions --seconds 60
"""

import argparse
import json
import pathlib
import subprocess
import sys

from tests.fuzz import engine

FAMILIES = ("annotations", "snapshots", "datasets", "predictions", "weights", "videos")


def main() -> int:
    """Fuzz each family in turn; return 1 if any input showed a fault."""
    arguments = _arguments()
    out = pathlib.Path(arguments.out)
    limits = {name: getattr(arguments, name) for name in ("only", "seed", "inputs", "seconds")}
    if arguments.here:
        engine.run(arguments.here, out / arguments.here, **limits)
    options = [f"--{name}={value}" for name, value in limits.items()]
    found: dict[str, dict] = {}
    ended_badly = []
    for family in arguments.families:
        (out / family).mkdir(parents=True, exist_ok=True)
        counts = out / family / "counts.json"
        counts.unlink(missing_ok=True)
        with open(out / family / "log.txt", "w") as log:
            status = subprocess.run(
                [sys.executable, "-m", "tests.fuzz", *options, f"--out={out}", f"--here={family}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            ).returncode
        if status or not counts.exists():
            ended_badly.append(f"{family} ended with status {status}: see {log.name}")
        if counts.exists():
            found[family] = json.loads(counts.read_text())
            total = sum(found[family]["inputs"].values())
            print(f"{family}: {total:,} inputs", flush=True)
            if not total:
                ended_badly.append(f"{family} tried nothing: see {out / family / 'log.txt'}")
    findings = [
        f"{family}: {name} ({count:,} times): see {out / family}"
        for family, of_family in found.items()
        for name, count in of_family["findings"].items()
    ]
    for line in (*findings, *ended_badly):
        print(f"fuzz: {line}", file=sys.stderr)
    every = sum(sum(of_family["inputs"].values()) for of_family in found.values())
    (out / "counts.json").write_text(json.dumps({"inputs": every, "families": found}, indent=2))
    print(f"fuzz: {every:,} inputs, {len(findings)} faults")
    return 1 if findings or ended_badly else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Try mutated inputs on every reader of untrusted files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("families", nargs="*", default=FAMILIES, metavar="FAMILY")
    parser.add_argument("--seconds", type=int, default=60, help="seconds per family")
    parser.add_argument("--inputs", type=int, default=-1, help="inputs per family; -1: unlimited")
    parser.add_argument("--only", default="", help="prefix of the targets' names")
    parser.add_argument("--seed", type=int, default=1, help="seed of the mutations")
    parser.add_argument("--out", default="runs/fuzz", help="output folder")
    parser.add_argument("--here", metavar="FAMILY", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
