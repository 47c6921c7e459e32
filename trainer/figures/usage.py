"""Group usage: each group's share of video tokens and of nouns."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from trainer.evaluation.grounding import nearest_group


def patch_shares(
    group_of: Int[np.ndarray, "n tokens"], group_tokens: int
) -> Float[np.ndarray, " m"]:
    """Return the share of all video tokens that each of M groups holds.

    >>> patch_shares(np.array([[0, 0, 1], [0, 2, 2]]), 4).tolist()
    [0.5, 0.16666666666666666, 0.3333333333333333, 0.0]
    """
    return np.bincount(group_of.ravel(), minlength=group_tokens) / group_of.size


def noun_shares(
    groups: Float[np.ndarray, "n m e"], nouns: list[Float[np.ndarray, "_ e"]]
) -> Float[np.ndarray, " m"]:
    """Return the share of all clips' nouns that each group is nearest to.

    All shares are 0 if there is no noun.

    >>> noun_shares(np.eye(2)[None], [np.array([[0.0, 1.0]])]).tolist()
    [0.0, 1.0]
    """
    counts = np.zeros(groups.shape[1])
    for of_clip, embedded in zip(groups, nouns, strict=True):
        for noun in embedded:
            counts[nearest_group(of_clip, noun)] += 1
    return counts / max(counts.sum(), 1.0)


def usage(patches: Float[np.ndarray, " m"], nouns: Float[np.ndarray, " m"], clips: int) -> Figure:
    """Draw bars of each group's share of patches and of nouns, largest patch share first."""
    order = np.argsort(-patches, kind="stable")
    figure = Figure(figsize=(max(5.0, 0.28 * len(order)), 3.0), layout="constrained", dpi=120)
    axis = figure.subplots()
    places = np.arange(len(order))
    axis.bar(places - 0.2, 100 * patches[order], width=0.4, label="patches")
    axis.bar(places + 0.2, 100 * nouns[order], width=0.4, label="nouns")
    axis.set_xticks(places, [str(group + 1) for group in order], fontsize=7)
    axis.set(xlabel="group", ylabel="share, %", title=f"Group usage over {clips:,} clips")
    axis.legend()
    return figure
