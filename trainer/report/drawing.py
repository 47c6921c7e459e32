"""The report's drawings: inline SVG and pictures as data URIs, in the style sheet's colours."""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from trainer.evaluation.grounding import Point

_WEBP_QUALITY = 78
# Maximum side in pixels and number of frames: the page has no room for more.
_FILM_SIDE, _FILM_FRAMES = 112, 16


class Series(NamedTuple):
    """One line of a chart. A value that is not finite leaves a gap."""

    name: str
    colour: str  # a custom property of the style sheet, such as "--blue"
    x: Sequence[float]
    y: Sequence[float]


class Bar(NamedTuple):
    """One bar of a group with a common unit."""

    name: str
    value: float | None  # None: not measured
    text: str
    ours: bool = False


def escape(text: object) -> str:
    """Return text escaped for HTML, including attributes in quotes."""
    return html.escape(str(text))


def section(heading: str, sentence: str, body: str, of: str) -> str:
    """Return a section of the page under its heading.

    Args:
      heading, sentence: the visible text, as HTML.
      body: HTML.
      of: the run and clips of the section, as text.
    """
    return f"<section><h2>{heading}</h2><p>{sentence}</p>{body}{source(of)}</section>"


def source(of: str) -> str:
    """Return the line under figures that names their run and clips."""
    return f'<p class="of">{escape(of)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Return an HTML table of texts, escaping them.

    >>> table(["", "a"], [["b", "1"]], "numbers of x")
    '<div class="card wide"><table><caption>numbers of x</caption><thead><tr><th></th><th>a</th>\
</tr></thead><tbody><tr><td>b</td><td>1</td></tr></tbody></table></div>'
    """
    named = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows
    )
    return (
        f'<div class="card wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{named}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def percent(share: float | None, unit: str = "") -> str:
    """Return a share as a percentage with one decimal. None gives a dash.

    >>> percent(0.125, " %"), percent(None)
    ('12.5 %', '–')
    """
    return "–" if share is None else f"{100 * share:.1f}{unit}"


def picture(pixels: UInt8[np.ndarray, "h w c"], *, lossless: bool = False) -> str:
    """Return an image as a data URI in WebP.

    >>> picture(np.zeros((2, 2, 3), np.uint8))[:16]
    'data:image/webp;'
    """
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "webp", quality=_WEBP_QUALITY, lossless=lossless, method=6)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def film(frames: UInt8[np.ndarray, "t h w c"], seconds: float, alt: str) -> str:
    """Return a looping film of a clip: a strip of its frames that the style sheet moves.

    Args:
      frames: the clip.
      seconds: the duration of the clip. The film takes 1 to 8 s.
      alt: a description in words.
    """
    count = min(len(frames), _FILM_FRAMES)
    picked = frames[(2 * np.arange(count) + 1) * len(frames) // (2 * count)]
    side = min(_FILM_SIDE, picked.shape[1])
    if side < picked.shape[1]:
        scaled = [Image.fromarray(frame).resize((side, side)) for frame in picked]
        picked = np.stack([np.asarray(frame) for frame in scaled])
    strip = np.concatenate(list(picked), axis=1)
    return (
        f'<div class="film"><img decoding="sync" src="{picture(strip)}" alt="{escape(alt)}" '
        f'width="{side * count}" height="{side}" '
        f'style="--frames:{count};--seconds:{min(max(seconds, 1.0), 8.0):.2f}s"></div>'
    )


def strip(frames: UInt8[np.ndarray, "n h w c"], overlay: str, alt: str) -> str:
    """Return frames side by side with an SVG over them. One frame's side is one unit."""
    cuts = "".join(f"M{place} 0v1" for place in range(1, len(frames)))
    pixels = np.concatenate(list(frames), axis=1)
    height, width = pixels.shape[:2]
    return (
        f'<div class="strip"><img src="{picture(pixels)}" alt="{escape(alt)}" width="{width}" '
        f'height="{height}"><svg viewBox="0 0 {len(frames)} 1" preserveAspectRatio="none" '
        f'aria-hidden="true">{overlay}<path class="cut" d="{cuts}"/></svg></div>'
    )


def claimed(mask: Bool[np.ndarray, "n rows columns"]) -> str:
    """Return a strip's overlay that dims patches outside the mask and outlines those in it."""
    dimmed, edges = [], []
    for frame, of_frame in enumerate(mask):
        rows, columns = of_frame.shape
        high, wide = 1 / rows, 1 / columns
        around = np.pad(of_frame, 1)
        for row, column in np.ndindex(rows, columns):
            x, y = frame + column * wide, row * high
            if not of_frame[row, column]:
                dimmed.append(f"M{x:.4g} {y:.4g}h{wide:.4g}v{high:.4g}h{-wide:.4g}z")
                continue
            if not around[row, column + 1]:
                edges.append(f"M{x:.4g} {y:.4g}h{wide:.4g}")
            if not around[row + 2, column + 1]:
                edges.append(f"M{x:.4g} {y + high:.4g}h{wide:.4g}")
            if not around[row + 1, column]:
                edges.append(f"M{x:.4g} {y:.4g}v{high:.4g}")
            if not around[row + 1, column + 2]:
                edges.append(f"M{x + wide:.4g} {y:.4g}v{high:.4g}")
    return f'<path class="dim" d="{"".join(dimmed)}"/><path class="edge" d="{"".join(edges)}"/>'


def target(point: Point) -> str:
    """Return a strip's overlay that marks where the model points."""
    x, y = point.window + point.x, point.y
    return (
        f'<circle class="halo" cx="{x:.4g}" cy="{y:.4g}" r="0.075"/>'
        f'<circle class="target" cx="{x:.4g}" cy="{y:.4g}" r="0.075"/>'
    )


def box(frame: int, mask: Bool[np.ndarray, "h w"]) -> str:
    """Return a strip's overlay: the box around a mask in a frame. Empty for an empty mask.

    >>> box(1, np.array([[False, False], [False, True]]))
    '<rect class="truth" x="1.5" y="0.5" width="0.5" height="0.5"/>'
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return ""
    return (
        f'<rect class="truth" x="{frame + columns[0] / width:.4g}" y="{rows[0] / height:.4g}" '
        f'width="{(columns[-1] - columns[0] + 1) / width:.4g}" '
        f'height="{(rows[-1] - rows[0] + 1) / height:.4g}"/>'
    )


def matrix(values: Float[np.ndarray, "n n"], mask: Bool[np.ndarray, " n"], low: float) -> str:
    """Return the SVG of a similarity matrix, with values from `low` to 1.

    The bars along its edges show whether each window is pasted (True in the mask).
    """
    count = len(values)
    sides = "".join(
        f'<rect class="{"pasted" if pasted else "around"}" {place}/>'
        for j, pasted in enumerate(mask)
        for place in (
            f'x="{j + 0.04}" y="-0.5" width="0.92" height="0.3"',
            f'x="-0.5" y="{j + 0.04}" width="0.3" height="0.92"',
        )
    )
    cells = "".join(
        f'<rect x="{j}" y="{i}" width="1.02" height="1.02" '
        f'fill-opacity="{min(max((values[i, j] - low) / (1 - low), 0.0), 1.0):.3f}">'
        f"<title>windows {i + 1} and {j + 1}: {values[i, j]:.3f}</title></rect>"
        for i in range(count)
        for j in range(count)
    )
    return (
        f'<svg class="matrix" viewBox="-0.6 -0.6 {count + 0.7} {count + 0.7}" role="img" '
        f'aria-label="similarity of each pair of windows">{sides}<g class="cells">{cells}</g></svg>'
    )


def bars(rows: Sequence[Bar], most: float) -> str:
    """Return horizontal bars on a common scale from 0 to `most`."""
    lines = []
    for row in rows:
        share = 0.0 if row.value is None else min(max(row.value / most, 0.0), 1.0)
        lines.append(
            f'<div class="bar{" ours" if row.ours else ""}"><span>{escape(row.name)}</span>'
            f'<i><b style="width:{100 * share:.2f}%"></b></i><em>{escape(row.text)}</em></div>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'


def smooth(values: Sequence[float], span: int) -> list[float]:
    """Return the running mean over the finite ones of the last `span` values.

    >>> smooth([1.0, 3.0, math.nan, 5.0], span=2)
    [1.0, 2.0, 3.0, 5.0]
    """
    means = []
    for end in range(1, len(values) + 1):
        finite = [value for value in values[max(end - span, 0) : end] if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    return means


_WIDTH, _HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 14, 10, 22


def lines(series: Sequence[Series], label: str) -> str:
    """Return a line chart: each series as measured, faint, and its running mean over it."""
    xs = [x for one in series for x in one.x]
    ys = [y for one in series for y in one.y if math.isfinite(y)]
    if not xs or not ys:
        return '<p class="none">nothing was logged</p>'
    x_low, y_low = min(0.0, *xs), min(0.0, *ys)
    x_high = max(xs) if max(xs) > x_low else x_low + 1.0
    y_high = max(ys) if max(ys) > y_low else y_low + 1.0

    def across(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in ticks(y_low, y_high):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down(tick):.1f}" '
            f'y2="{down(tick):.1f}"/><text x="{_LEFT - 7}" y="{down(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:g}</text>'
        )
    for tick in ticks(x_low, x_high):
        parts.append(
            f'<text x="{across(tick):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{tick:g}</text>'
        )
    for one in series:
        averaged = smooth(one.y, span=max(len(one.y) // 20, 1))
        for kind, values in (("raw", one.y), ("mean", averaged)):
            path = _path([(across(x), down(y)) for x, y in zip(one.x, values, strict=True)])
            parts.append(f'<path class="{kind}" style="stroke:var({one.colour})" d="{path}"/>')
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`, in about four steps.

    >>> ticks(0.0, 400.0)
    [0.0, 100.0, 200.0, 300.0, 400.0]
    """
    rough = max(high - low, 1e-9) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * min((1, 2, 5, 10), key=lambda size: abs(size * unit - rough))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) + 0.0 for number in range(first, last + 1)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    commands, drawing = [], False
    for x, y in points:
        if math.isfinite(y):
            commands.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        drawing = math.isfinite(y)
    return "".join(commands)
