"""Diagrams of boxes and arrows: the data flow, the model, and the anatomy of a snapshot."""

from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

INK, DATA, CODE, LOSS = "#222222", "#dcebf7", "#e7f3df", "#fbe6d4"
_LINE = 0.2  # height of a line of text, in units of the axes


def canvas(width: float, height: float) -> tuple[Figure, Any]:
    """Return a white figure whose axes have one unit per inch, and no frame."""
    figure = plt.figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def box(
    axes: Any, x: float, y: float, w: float, h: float, title: str, text: str = "", fill: str = DATA
) -> None:
    """Draw a box with its title and lines of text; (x, y) is the lower left corner."""
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=shape, fc=fill, ec=INK, lw=0.8))
    lines = text.splitlines()
    top = y + h / 2 + _LINE * len(lines) / 2
    axes.text(x + w / 2, top, title, ha="center", va="center", fontsize=9.5, weight="bold")
    for number, line in enumerate(lines, 1):
        axes.text(x + w / 2, top - _LINE * number, line, ha="center", va="center", fontsize=8)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """Draw an arrow, with a text above its middle."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.1})
    if text:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1)
        axes.text(*middle, text, ha="center", va="bottom", fontsize=8)


def data_flow() -> Figure:
    """Draw the two stages and what passes between them."""
    figure, axes = canvas(8.6, 2.5)
    box(axes, 0.1, 1.4, 1.3, 0.8, "annotations", "CSV, JSON,\nParquet")
    box(axes, 0.1, 0.3, 1.3, 0.8, "videos", "disk or bucket")
    box(
        axes,
        1.9,
        0.6,
        1.7,
        1.3,
        "svilm-pipelines",
        "plan rows to shards\ndecode in a sandbox\nnoun chunks",
        CODE,
    )
    box(axes, 4.1, 0.6, 1.2, 1.3, "snapshot", "TFRecords\nindex, manifest")
    box(axes, 5.8, 0.6, 1.25, 1.3, "svilm-train", "cut-and-paste\ntwo encoders\nthree losses", CODE)
    box(axes, 7.45, 1.4, 1.05, 0.8, "run", "checkpoints")
    box(axes, 7.45, 0.3, 1.05, 0.8, "use", "search, tasks,\nfeatures")
    arrow(axes, (1.4, 1.8), (1.9, 1.5))
    arrow(axes, (1.4, 0.7), (1.9, 1.0))
    arrow(axes, (3.6, 1.25), (4.1, 1.25))
    arrow(axes, (5.3, 1.25), (5.8, 1.25))
    arrow(axes, (7.05, 1.5), (7.45, 1.8))
    arrow(axes, (7.97, 1.4), (7.97, 1.1))
    return figure


def model() -> Figure:
    """Draw the encoders and the losses, at the paper's sizes."""
    figure, axes = canvas(8.6, 4.3)
    box(axes, 0.1, 2.9, 1.3, 0.9, "clip", "32 frames\nof 224×224")
    box(axes, 1.75, 2.9, 1.35, 0.9, "cut-and-paste", "splice with\nanother clip", CODE)
    box(axes, 3.45, 2.9, 1.35, 0.9, "tubelets", "3136 video tokens\n+ 32 group tokens", CODE)
    box(
        axes,
        5.15,
        2.55,
        1.75,
        1.6,
        "ViT-B, 12 layers",
        "joint attention\ngrouping blocks\nafter 6, 9, 12:\ntokens → groups",
        CODE,
    )
    box(axes, 7.3, 3.35, 1.2, 0.7, "video tokens", "per window")
    box(axes, 7.3, 2.45, 1.2, 0.7, "group tokens", "256 wide")
    box(axes, 0.1, 0.75, 1.3, 1.0, "caption", "“While a yellow\ncross is falling …”")
    box(axes, 1.75, 0.75, 1.35, 1.0, "nouns", "“a photo of a\nyellow cross”")
    box(axes, 3.45, 0.75, 1.35, 1.0, "BERT-base", "[CLS] → 256", CODE)
    box(axes, 5.15, 0.2, 1.75, 0.6, "contrast", "eq. 7: clip and caption", LOSS)
    box(axes, 5.15, 0.95, 1.75, 0.6, "grounding", "eq. 3–6: groups and nouns", LOSS)
    box(axes, 5.15, 1.7, 1.75, 0.6, "temporal", "eq. 1–2: windows", LOSS)
    for left, right in ((1.4, 1.75), (3.1, 3.45), (4.8, 5.15)):
        arrow(axes, (left, 3.35), (right, 3.35))
    arrow(axes, (6.9, 3.55), (7.3, 3.65))
    arrow(axes, (6.9, 2.95), (7.3, 2.85))
    arrow(axes, (1.4, 1.25), (1.75, 1.25))
    arrow(axes, (3.1, 1.25), (3.45, 1.25))
    arrow(axes, (4.8, 1.25), (5.15, 1.25))
    arrow(axes, (4.8, 1.05), (5.15, 0.6))
    axes.plot([7.55, 7.55], [2.45, 0.5], color=INK, lw=1.1)
    arrow(axes, (7.55, 1.25), (6.9, 1.25))
    arrow(axes, (7.55, 0.5), (6.9, 0.5))
    axes.plot([8.56, 8.56], [3.7, 2.0], color=INK, lw=1.1)
    axes.plot([8.5, 8.56], [3.7, 3.7], color=INK, lw=1.1)
    arrow(axes, (8.56, 2.0), (6.9, 2.0))
    return figure


def snapshot() -> Figure:
    """Draw the files of a snapshot and the fields of a record."""
    figure, axes = canvas(8.6, 3.6)
    box(
        axes,
        0.1,
        2.5,
        2.5,
        1.0,
        "manifest.json",
        "written last\nhashes of inputs and options\nrows = records + rejects",
    )
    box(axes, 0.1, 1.55, 2.5, 0.7, "plan.json", "rows that reached no shard")
    box(axes, 3.1, 2.5, 2.3, 1.0, "shard-00003-of-00016\n.tfrecord", "", CODE)
    box(axes, 3.1, 1.55, 2.3, 0.7, "….index", "offset of each record")
    box(axes, 3.1, 0.6, 2.3, 0.7, "….json", "its videos and rejects")
    box(
        axes, 6.0, 0.35, 2.5, 3.15, "one record: Clip",
        "clip_id, video_id\nstart_us, end_us\ncaption\nnoun_chunks: text, place,\n12 prompts each\n"
        "frames: JPEGs\nframe_time_us\nlabels, questions,\nsegments, boxes\nsource_row", CODE,
    )  # fmt: skip
    arrow(axes, (2.6, 3.0), (3.1, 3.0), "sha256")
    arrow(axes, (2.6, 2.75), (3.1, 1.95))
    arrow(axes, (2.6, 2.65), (3.1, 1.0))
    arrow(axes, (0.9, 2.5), (0.9, 2.25))
    arrow(axes, (5.4, 3.0), (6.0, 3.0))
    arrow(axes, (5.4, 1.9), (6.0, 1.9))
    axes.text(
        0.1,
        0.75,
        "Shards are divided by the hash of the\nvideo's id: a video's clips share one.",
        fontsize=8,
        va="center",
    )
    return figure
