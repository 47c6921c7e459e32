"""The renderer of *Shapes* clips, from scenes to pixels and their ground truth.

The renderer uses only float32 sums and products, comparisons and square roots. It uses no
transcendental functions, and no reductions whose order could vary. So a scene gives the same bytes
on every machine.
"""

import numpy as np

from pipelines.shapes.film import Background, Format, Texture
from pipelines.shapes.scene import Clip, Thing

RGB: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 25),
    "orange": (255, 135, 0),
    "cyan": (20, 225, 235),
    "yellow": (250, 220, 30),
    "green": (20, 165, 45),
    "blue": (30, 60, 230),
    "pink": (255, 125, 195),
    "white": (252, 252, 252),
}
PIXEL_NOISE = 5
_LATTICE = 16

Box = tuple[int, int, int, int]


def frames(clip: Clip) -> np.ndarray:
    """Render a clip to uint8 [frames, height, width, 3], RGB."""
    rng = np.random.default_rng(clip.background.noise_seed)
    picture = _background(clip.background, clip.format, rng)
    for thing, cover in zip(clip.things, _covers(clip), strict=True):
        colour = np.array(RGB[thing.concepts.colour], np.float32)
        picture += cover[..., None] * (colour - picture)
    noise = rng.integers(-PIXEL_NOISE, PIXEL_NOISE + 1, picture.shape, np.int8)
    return np.clip(np.rint(picture) + noise, 0, 255).astype(np.uint8)


def masks(clip: Clip) -> np.ndarray:
    """Return each object's mask of pixels: bool [objects, frames, height, width]."""
    return _covers(clip) >= 0.5


def boxes(clip: Clip) -> list[list[Box | None]]:
    """Return boxes [object][frame] as (x0, y0, x1, y1), ends exclusive, or None if invisible."""
    return [[_box(mask) for mask in thing_masks] for thing_masks in masks(clip)]


def _box(mask: np.ndarray) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# Objects


def _covers(clip: Clip) -> np.ndarray:
    """Return each object's coverage of pixels, 0 to 1: float32 [objects, frames, height, width]."""
    return np.stack([_cover(thing, clip.format) for thing in clip.things])


def _cover(thing: Thing, format: Format) -> np.ndarray:
    pose = np.array([(p.x, p.y, p.radius, p.visible) for p in thing.poses], np.float32)
    x, y, radius, visible = pose.T[:, :, None, None]
    pixel = np.arange(format.side, dtype=np.float32) + np.float32(0.5)
    distance = _distance(thing.concepts.kind, pixel - x, pixel[:, None] - y, radius)
    return np.clip(np.float32(0.5) - distance, 0, 1) * visible


def _distance(kind: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the signed distance (negative inside) to an outline in pixels.

    The distance is exact near straight edges.
    """
    match kind:
        case "disc":
            return _length(x, y) - 0.9 * radius
        case "ring":
            return np.abs(_length(x, y) - 0.76 * radius) - 0.22 * radius
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - 0.8 * radius
        case "triangle":
            y = y - 0.15 * radius
            slopes = 0.894 * np.abs(x) - 0.447 * y - 0.44 * radius
            return np.maximum(slopes, y - 0.75 * radius)
        case "cross":
            x, y = np.abs(x), np.abs(y)
            upright = np.maximum(x - 0.3 * radius, y - radius)
            return np.minimum(upright, np.maximum(x - radius, y - 0.3 * radius))
        case "star":
            return _pentagram(x, y, 1.08 * radius)
        case "moon":
            bite = _length(x - 0.62 * radius, y) - 0.8 * radius
            return np.maximum(_length(x, y) - radius, -bite)
    raise ValueError(f"kind {kind!r} has no outline: write one in render._distance")


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


def _pentagram(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the signed distance to a star: the second largest of its five lines' distances.

    A point is inside the star if it is inside at least four of the five lines.
    """
    normals = ((0, 1), (0.9511, 0.309), (-0.9511, 0.309), (0.5878, -0.809), (-0.5878, -0.809))
    largest = second = np.full(np.broadcast_shapes(x.shape, y.shape), -np.inf, np.float32)
    for a, b in normals:
        line = np.float32(a) * x + np.float32(b) * y
        second = np.maximum(second, np.minimum(largest, line))
        largest = np.maximum(largest, line)
    return second - np.float32(0.345) * radius


# Backgrounds


def _background(background: Background, format: Format, rng: np.random.Generator) -> np.ndarray:
    fade = np.linspace(0, 1, format.frames, dtype=np.float32)[:, None, None]
    before, after = (_texture(texture, format, rng) for texture in background.textures)
    pattern = before + fade * (after - before)
    colours = np.array(background.colours, np.float32)[:, None, None]
    return colours + pattern[..., None]


def _texture(texture: Texture, format: Format, rng: np.random.Generator) -> np.ndarray:
    """Return a drifting pattern with values around 0: float32 [frames, height, width]."""
    lattice = rng.integers(-256, 257, (_LATTICE, _LATTICE)).astype(np.float32) / 256
    pixel = np.arange(format.side, dtype=np.float32)
    time = np.arange(format.frames, dtype=np.float32)[:, None, None]
    x = pixel + np.float32(texture.drift[0]) * time
    y = pixel[:, None] + np.float32(texture.drift[1]) * time
    cosine, sine = (np.float32(part) for part in texture.direction)
    along = (cosine * x + sine * y) / np.float32(texture.cell)
    across = (cosine * y - sine * x) / np.float32(texture.cell)
    match texture.pattern:
        case "noise":
            pattern = _value_noise(lattice, along, across)
        case "stripes":
            pattern = _wave(along)
        case "checks":
            pattern = np.clip(4 * _wave(along), -1, 1) * np.clip(4 * _wave(across), -1, 1)
    return pattern * np.float32(texture.contrast)


def _wave(x: np.ndarray) -> np.ndarray:
    """Return a triangle wave of period 2 between -1 and 1."""
    return 2 * np.abs(x - 2 * np.floor(x / 2) - 1) - 1


def _value_noise(lattice: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate smoothly between the random values of a periodic lattice."""
    column, row = np.floor(x), np.floor(y)
    u, v = x - column, y - row
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    j, i = column.astype(np.int32) % _LATTICE, row.astype(np.int32) % _LATTICE
    right, below = (j + 1) % _LATTICE, (i + 1) % _LATTICE
    top = lattice[i, j] + u * (lattice[i, right] - lattice[i, j])
    bottom = lattice[below, j] + u * (lattice[below, right] - lattice[below, j])
    return top + v * (bottom - top)
