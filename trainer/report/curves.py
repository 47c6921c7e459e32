"""The report's numbers: figures beside their baselines, training curves, snapshots."""

import math
from collections.abc import Sequence
from typing import Any

from protos.v1 import clip_pb2, manifest_pb2
from trainer.report import drawing
from trainer.report.context import Subject, describe
from trainer.report.drawing import Bar, Series

# --- figures beside their baselines ---


def headline(subject: Subject) -> str:
    """Return the HTML of the main figures, each beside its baselines."""
    metrics = subject.metrics
    shot, controls, times = metrics["zero_shot"], metrics["controls"], metrics["temporal"]
    forward = shot["t2v"]
    tiles = [
        _tile(
            "Text-to-video retrieval",
            f"{forward['R@1']:.1f}<small> %</small>",
            f"of captions rank their own clip first among {shot['n']:,} (R@1); "
            f"{forward['R@5']:.0f} % rank it among the first five (R@5).",
            [
                Bar("all frames", forward["R@1"], f"{forward['R@1']:.1f}", ours=True),
                Bar(
                    "middle frame only", controls["single_frame"], f"{controls['single_frame']:.1f}"
                ),
                Bar("grey frames", controls["blank_frames"], f"{controls['blank_frames']:.1f}"),
                Bar("chance", 100 / shot["n"], f"{100 / shot['n']:.1f}"),
            ],
        )
    ]
    if pointing := metrics["grounding"]:
        rows = [
            ("named object", pointing["pointing_accuracy"], True),
            ("another object", pointing["other_object"], False),
            ("chance (mean area)", pointing["chance"], False),
        ]
        tiles.append(
            _tile(
                "Noun grounding",
                drawing.percent(pointing["pointing_accuracy"], "<small> %</small>"),
                "of nouns: the top patch of the noun's group lies on the named object.",
                [Bar(name, value, drawing.percent(value), ours) for name, value, ours in rows],
            )
        )
    rows = [
        ("this run", times["window_accuracy"], True),
        ("without temporal loss", times["no_temporal_loss"], False),
        ("position alone", times["position_prior"], False),
        ("untrained model", times["random_encoder"], False),
    ]
    tiles.append(
        _tile(
            "Temporal grouping",
            drawing.percent(times["window_accuracy"], "<small> %</small>"),
            "of the windows of two spliced clips are more similar to their own side.",
            [Bar(name, value, drawing.percent(value), ours) for name, value, ours in rows],
        )
    )
    retrieval = drawing.table(
        ("", "R@1, %", "R@5, %", "R@10, %", "median rank", "R@1, optimistic"),
        [
            [
                name,
                *(f"{shot[way][key]:.1f}" for key in ("R@1", "R@5", "R@10", "MedR")),
                f"{shot[way]['optimistic']['R@1']:.1f}",
            ]
            for name, way in (("text to video", "t2v"), ("video to text", "v2t"))
        ],
        f"Zero-shot retrieval. {subject.of}",
    )
    return (
        f'<section><div class="tiles">{"".join(tiles)}</div>{drawing.source(subject.of)}'
        f"{retrieval}</section>"
    )


def _tile(name: str, figure: str, sentence: str, rows: Sequence[Bar]) -> str:
    most = max([row.value for row in rows if row.value is not None], default=0.0)
    return (
        f'<div class="card tile"><h3>{name}</h3><div class="figure">{figure}</div>'
        f"<p>{sentence}</p>{drawing.bars(rows, most or 1.0)}</div>"
    )


# --- training ---

_CURVES = (
    ("contrast", "Global contrastive loss", "captions against clips", "--orange"),
    ("grounding", "Spatial grounding loss", "nouns against groups", "--blue"),
    ("temporal", "Temporal grouping loss", "windows against two centres", "--green"),
    ("group_entropy", "Group usage entropy", "1: uniform, 0: one group", "--violet"),
)


def training(log: list[dict[str, Any]], of: str) -> str:
    """Return the HTML of a run's training curves. `of` comes from `trained`."""
    charts = []
    for key, name, what, colour in _CURVES:
        points = [(float(entry["step"]), entry[key]) for entry in log if key in entry]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        finite = [math.nan if value is None else float(value) for value in values]
        series = Series(name, colour, steps, finite)
        charts.append(
            f'<div class="card"><h3>{name} <span>· {what}</span></h3>'
            f"{drawing.lines([series], f'{name} over steps')}</div>"
        )
    body = f'<div class="charts">{"".join(charts)}</div>'
    if not charts:
        body = '<p class="none">The run has no logged steps.</p>'
    return drawing.section(
        "Training curves",
        "Each loss by step: logged values (faint) and their running mean (bold). A clip without "
        "cut-and-paste has no temporal loss, so that curve rises when cut-and-paste starts.",
        body,
        of,
    )


def trained(subject: Subject) -> str:
    """Return a caption: the run, its training snapshot and the range of logged steps."""
    steps = [entry["step"] for entry in subject.log if "step" in entry]
    logged = f", logged at steps {min(steps):,} to {max(steps):,}" if steps else ""
    on = "" if subject.train is None else f" on {describe(subject.train)}"
    return f"{subject.run_name}, trained{on}{logged}."


# --- snapshots ---


def snapshots(subject: Subject) -> str:
    """Return the HTML table that compares the snapshots' manifests."""
    named = [("test", subject.test)]
    if subject.train is not None:
        named.insert(0, ("train", subject.train))
    columns = {name: _facts(snapshot.manifest) for name, snapshot in named}
    labels = list(dict.fromkeys(label for facts in columns.values() for label in facts))
    described = "; ".join(f"{name}: {describe(snapshot)}" for name, snapshot in named)
    table = drawing.table(
        ("", *columns),
        [[label, *(facts.get(label, "–") for facts in columns.values())] for label in labels],
        f"Manifests of the snapshots. {described}.",
    )
    return drawing.section(
        "Snapshots",
        "Each annotation row is a record or a counted reject. The manifests record all settings "
        "that determine the bytes.",
        table,
        f"The test clips{'' if subject.train is None else ' and the training clips'} of "
        f"{subject.run_name}.",
    )


def _frame(config: manifest_pb2.BuildConfig) -> str:
    """Return the frames' size and encoding as text.

    >>> _frame(manifest_pb2.BuildConfig(short_side=64, frame_encoding=1, jpeg_quality=95))
    'short side 64 px, JPEG 95'
    """
    side = config.short_side
    size = f"{side} × {side} px" if config.square else f"short side {side} px"
    encoding = clip_pb2.FrameEncoding.Name(config.frame_encoding).removeprefix("FRAME_ENCODING_")
    return f"{size}, {encoding}{f' {config.jpeg_quality}' if config.jpeg_quality else ''}"


def _facts(manifest: manifest_pb2.Manifest) -> dict[str, str]:
    counts, config = manifest.counts, manifest.config
    size = sum(shard.data.bytes for shard in manifest.shards)
    rejects = ", ".join(f"{reason} {number:,}" for reason, number in sorted(counts.rejects.items()))
    return {
        "data set, version": f"{manifest.dataset} {manifest.data_version}",
        "annotation rows": f"{counts.rows:,}",
        "records": f"{counts.records:,}",
        "rejects": rejects or "none",
        "frames per clip": f"{config.frames_per_clip}, {_frame(config)}",
        "shards, size": f"{config.num_shards:,}, {size / 1e6:,.1f} MB",
        "schema": manifest.schema_version,
        "inputs, sha256": manifest.inputs_sha256[:16],
        **{f"{name}": version for name, version in sorted(manifest.versions.items())},
    }
