"""The outcome of a study: a table in Markdown and a plot, with the spread over seeds."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from trainer.finite import finite

Figures = dict[str, dict[str, list[float]]]
"""Figures by variant and measure, one value per seed."""


def spread(values: Sequence[float]) -> str:
    """Return mean ± sample standard deviation. A single value stands alone.

    >>> spread([1.0, 2.0, 3.0]), spread([0.5])
    ('2.000 ± 1.000', '0.500')
    """
    finite("figures of the seeds", values)
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.3f}"


def table(figures: Figures, bases: Mapping[str, str], title: str) -> str:
    """Return a Markdown table of all figures and of the differences between variants.

    Differences are taken within a seed. They leave out what seeds share, so judge by their spread.

    Args:
      figures: the figures to show.
      bases: the baseline of each compared variant.
      title: the title of the table.

    >>> print(table({"a": {"x": [1.0, 2.0]}, "b": {"x": [2.0, 4.0]}}, {"b": "a"}, "2 seeds"))
    2 seeds
    <BLANKLINE>
    | | x |
    |---|---|
    | a | 1.500 ± 0.707 |
    | b | 3.000 ± 1.414 |
    | b − a | 1.500 ± 0.707 |
    """
    measures = list(next(iter(figures.values())))
    lines = [title, "", f"| | {' | '.join(measures)} |", "|---" * (1 + len(measures)) + "|"]
    for variant, values in figures.items():
        lines.append(_line(variant, [values[measure] for measure in measures]))
    for variant, base in bases.items():
        above = [
            [ours - its for ours, its in zip(figures[variant][m], figures[base][m], strict=True)]
            for m in measures
        ]
        lines.append(_line(f"{variant} − {base}", above))
    return "\n".join(lines)


def _line(name: str, columns: Sequence[Sequence[float]]) -> str:
    shown = name.replace("|", "\\|")  # a cell ends at a bare |
    return f"| {shown} | {' | '.join(spread(values) for values in columns)} |"


def plot(figures: Figures, title: str) -> Figure:
    """Plot one panel per measure: each variant's mean and spread, and one point per seed."""
    variants, measures = list(figures), list(next(iter(figures.values())))
    figure = Figure(figsize=(3.2 * len(measures), 3.4), layout="constrained", dpi=120)
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axis, measure in zip(panels, measures, strict=True):
        for place, variant in enumerate(variants):
            values = figures[variant][measure]
            error = statistics.stdev(values) if len(values) > 1 else 0.0
            axis.errorbar(place, statistics.mean(values), error, fmt="_", capsize=6, markersize=18)
            axis.scatter([place] * len(values), values, s=12, color="black", zorder=3)
        axis.set_xticks(range(len(variants)), variants, rotation=30, ha="right", fontsize=8)
        axis.set_title(measure)
        axis.margins(x=0.2)
    return figure
