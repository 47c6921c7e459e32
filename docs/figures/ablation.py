"""Plot of the ablation of losses, from benchmarks/results/losses.json."""

import json
import pathlib
import statistics

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks" / "results" / "losses.json"
_WHOLE = ("contrast", "contrast + grounding")  # the other variants train on spliced clips
_MEASURES = (
    ("t2v R@1", "text-to-video R@1, %"),
    ("pointing", "pointing at the noun's object"),
    ("windows", "accuracy of windows"),
)


def ablation() -> Figure:
    """Draw each variant's mean over seeds as a bar, and each seed as a dot."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    variants = list(results)
    figure, axes = plt.subplots(
        1, 3, figsize=(8.6, 2.9), sharey=True, facecolor="white", layout="constrained"
    )
    for axis, (measure, title) in zip(axes, _MEASURES, strict=True):
        for place, variant in enumerate(variants):
            seeds = results[variant][measure]
            colour = "#b9b9b9" if variant in _WHOLE else "#7aa6cf"
            axis.barh(place, statistics.mean(seeds), color=colour, height=0.7)
            axis.plot(seeds, [place] * len(seeds), "o", color="#222222", markersize=3)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
        names = [variant.replace(", pasted", ", spliced") for variant in variants]
        axis.set_yticks(range(len(variants)), names, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    kinds = [Patch(color="#b9b9b9", label="whole clips"), Patch(color="#7aa6cf", label="spliced")]
    figure.legend(handles=kinds, fontsize=8, loc="outside lower center", ncols=2)
    return figure
