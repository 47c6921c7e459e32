"""Heat maps that locate a noun in a clip (figure 2, right, and figure 4)."""

import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from PIL import Image

_COLOURS = matplotlib.colormaps["inferno"]
_OPACITY = 0.7  # opacity of the hottest patch over its frame
_COLUMNS = 8  # maximum windows of a still, spread over the clip
_FILM_SIDE = 160  # minimum side of a film's pictures, pixels
_GAP = 4  # pixels between a film's pictures
# Maximum characters of a caption per column, and of a noun: more leaves the pictures no room.
_CAPTION, _NOUN = 30, 40


def overlay(
    frames: UInt8[np.ndarray, "n r r 3"], heat: Float[np.ndarray, "n rows columns"]
) -> UInt8[np.ndarray, "n r r 3"]:
    """Draw a heat map over each frame, interpolated between patches.

    A hotter pixel hides more of the frame. Heat is scaled so that the clip's hottest patch is 1.

    >>> grey = np.full((1, 4, 4, 3), 99, np.uint8)
    >>> bool((overlay(grey, np.zeros((1, 2, 2))) == grey).all())
    True
    >>> overlay(grey, np.ones((1, 2, 2)))[0, 0, 0].tolist()
    [206, 208, 145]
    """
    share = (heat / max(float(heat.max()), 1e-9)).astype(np.float32)
    size = frames.shape[2], frames.shape[1]
    scaled = [Image.fromarray(one).resize(size, Image.Resampling.BILINEAR) for one in share]
    hot = np.stack([np.asarray(one) for one in scaled])
    opacity = _OPACITY * hot[..., None]
    return np.round((1 - opacity) * frames + opacity * 255 * _COLOURS(hot)[..., :3]).astype(
        np.uint8
    )


def still(
    caption: str,
    frames: UInt8[np.ndarray, "t r r 3"],
    nouns: Sequence[str],
    heat: Sequence[Float[np.ndarray, "nt rows columns"]],
) -> Figure:
    """Draw a row of frames, and below it one row per noun with its heat map over them."""
    windows = len(heat[0]) if heat else len(frames)
    count, tubelet = min(_COLUMNS, windows), len(frames) // windows
    picked = (2 * np.arange(count) + 1) * windows // (2 * count)
    of_windows = frames[picked * tubelet + tubelet // 2]
    rows = [("", of_windows)]
    for noun, of_noun in zip(nouns, heat, strict=True):
        rows.append((noun, overlay(of_windows, of_noun[picked])))
    figure = Figure(figsize=(1.3 * count, 1.3 * len(rows) + 0.5), layout="constrained", dpi=120)
    figure.suptitle(shortened(caption, _CAPTION * count), parse_math=False, wrap=True)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for row, (name, pictures) in zip(axes, rows, strict=True):
        row[0].set_ylabel(shortened(name, _NOUN), parse_math=False)
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
    return figure


def shortened(text: str, most: int) -> str:
    r"""Return the text on one line, cut to `most` characters with an ellipsis.

    >>> shortened("a red\nring", 10), shortened("a red ring rises", 10)
    ('a red ring', 'a red rin…')
    """
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def film(
    frames: UInt8[np.ndarray, "t r r 3"], heat: Sequence[Float[np.ndarray, "nt rows columns"]]
) -> list[Image.Image]:
    """Return all frames, each beside its copies with one noun's heat map."""
    gap = np.full((*frames.shape[:2], _GAP, 3), 255, np.uint8)
    parts = [frames]
    for of_noun in heat:
        of_frames = np.repeat(of_noun, len(frames) // len(of_noun), axis=0)
        parts += [gap, overlay(frames, of_frames)]
    larger = -(-_FILM_SIDE // frames.shape[1])
    pictures = [Image.fromarray(one) for one in np.concatenate(parts, axis=2)]
    return [one.resize((one.width * larger, one.height * larger)) for one in pictures]


def save_film(pictures: Sequence[Image.Image], seconds: float, path: pathlib.Path) -> None:
    """Write pictures as a looping GIF that lasts as long as the clip, 10 s at most."""
    each = round(1000 * min(seconds, 10.0) / len(pictures))
    first, *rest = pictures
    first.save(path, save_all=True, append_images=rest, duration=max(each, 20), loop=0)
