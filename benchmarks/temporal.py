"""The effect of the temporal loss: window accuracy with and without it, by seed.

It trains a short run with the loss and one without for each seed, on the demo's snapshots. It
evaluates each pair on the test splices and writes benchmarks/results/temporal.json.

    python benchmarks/demo.py && python benchmarks/temporal.py
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

_SCRIPT = pathlib.Path(sys.executable).parent / "svilm-train"
_RESULTS = pathlib.Path(__file__).parent / "results" / "temporal.json"
_FIGURES = ("window_accuracy", "position_prior", "random_encoder", "no_temporal_loss")


def main() -> int:
    """Run the benchmark and return 0."""
    arguments = _arguments()
    demo, out = pathlib.Path(arguments.demo), pathlib.Path(arguments.out)
    seeds = []
    for seed in range(arguments.seeds):
        runs = {"with": out / f"seed{seed}-with", "without": out / f"seed{seed}-without"}
        for name, run in runs.items():
            weight = [] if name == "with" else ["--set", "loss.temporal_weight=0"]
            _svilm_train(
                *("pretrain", "--preset", "tiny", "--snapshot", demo / "train", "--out", run),
                *("--max-steps", arguments.steps, "--set", f"seed={seed}", *weight),
                *("--set", "cut_and_paste.from_step=0"),
            )
        figures = out / f"seed{seed}.json"
        _svilm_train(
            *("evaluate", "--run", runs["with"], "--control", runs["without"]),
            *("--snapshot", demo / "test", "--out", figures),
        )
        seeds.append({"seed": seed, **json.loads(figures.read_text())["temporal"]})
    means = {name: statistics.mean(seed[name] for seed in seeds) for name in _FIGURES}
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(
        json.dumps({"steps": arguments.steps, "mean": means, "seeds": seeds}, indent=2) + "\n"
    )
    for name, value in means.items():
        each = ", ".join(f"{seed[name]:.3f}" for seed in seeds)
        print(f"{name:<18}{value:6.3f}   ({each})")
    print(f"written to {_RESULTS}")
    return 0


def _svilm_train(*arguments: Any) -> None:
    subprocess.run([str(_SCRIPT), *map(str, arguments)], check=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Window accuracy with and without the temporal loss.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--demo", default="runs/demo", help="folder of the demo's snapshots")
    parser.add_argument("--out", default="runs/temporal", help="folder for the runs")
    parser.add_argument("--steps", type=int, default=150, help="steps per run")
    parser.add_argument("--seeds", type=int, default=3, help="number of pairs of runs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
