"""Similarities of the windows of spliced clips (figure 2, left, and figure 5)."""

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.figure import Figure

from trainer.evaluation import temporal
from trainer.inference.encoder import Encoder

_COLUMNS = 6  # frames shown per splice


def similarities(
    spliced: UInt8[np.ndarray, "n t r r 3"],
    mask: Bool[np.ndarray, "n nt"],
    encoders: dict[str, Encoder],
) -> Figure:
    """Draw one row per splice: some of its frames, and one similarity matrix per encoder.

    The matrices of a row share one scale, up to 1. White lines mark where the clips meet.

    Args:
      spliced: clips pasted into others (trainer.evaluation.temporal.splice).
      mask: True at windows of the pasted clip.
      encoders: encoders by their displayed names.
    """
    tables = {
        name: [temporal.similarity_matrix(of_clip) for of_clip in encoder.clips(spliced).windows]
        for name, encoder in encoders.items()
    }
    figure = Figure(
        figsize=(0.9 * _COLUMNS + 2.6 * len(tables), 2.4 * len(spliced)),
        layout="constrained",
        dpi=120,
    )
    shape = [_COLUMNS * 0.9, *[2.6] * len(tables)]
    axes = figure.subplots(len(spliced), 1 + len(tables), squeeze=False, width_ratios=shape)
    for place, (row, clip) in enumerate(zip(axes, spliced, strict=True)):
        picked = (2 * np.arange(_COLUMNS) + 1) * len(clip) // (2 * _COLUMNS)
        row[0].imshow(np.concatenate(list(clip[picked]), axis=1))
        row[0].set_axis_off()
        low = min(float(of_all[place].min()) for of_all in tables.values())
        drawn = []
        for axis, (name, of_all) in zip(row[1:], tables.items(), strict=True):
            drawn.append(axis.imshow(of_all[place], vmin=low, vmax=1.0))
            for edge in np.flatnonzero(np.diff(mask[place])) + 0.5:
                axis.axvline(edge, color="white", linewidth=0.8)
                axis.axhline(edge, color="white", linewidth=0.8)
            axis.set_xticks([])
            axis.set_yticks([])
            if place == 0:
                axis.set_title(name, parse_math=False)
        figure.colorbar(drawn[0], ax=list(row[1:]), shrink=0.8)
    return figure
