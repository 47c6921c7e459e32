"""The filming of a *Shapes* clip: the paths of its objects, and its background."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.shapes import ShapesError, grammar
from pipelines.shapes.draws import choice, exact


@dataclass(frozen=True)
class Format:
    """The format of clips: `frames` of `side`² pixels at `fps`, `clips_per_video` per file."""

    frames: int = 12
    fps: int = 6
    side: int = 64
    clips_per_video: int = 6

    @property
    def clip_us(self) -> int:
        """Duration of a clip in microseconds.

        >>> Format().clip_us
        2000000
        """
        return self.frames * 1_000_000 // self.fps


@dataclass(frozen=True)
class Pose:
    """An object's position in one frame: centre and radius in pixels, with y downwards."""

    x: float
    y: float
    radius: float
    visible: bool


@dataclass(frozen=True)
class Texture:
    """A pattern of `cell` pixels along `direction`, which drifts by `drift` pixels per frame."""

    pattern: Literal["noise", "stripes", "checks"]
    cell: float
    direction: tuple[float, float]
    drift: tuple[float, float]
    contrast: float


@dataclass(frozen=True)
class Background:
    """A cross-fade of two textures over one colour (RGB, 0–255) per frame."""

    textures: tuple[Texture, Texture]
    colours: tuple[tuple[float, float, float], ...]
    noise_seed: int


def poses_of(rng: np.random.Generator, motion: str, side: int, format: Format) -> tuple[Pose, ...]:
    """Return an object's path inside its half of the frame, where `side` 0 is the left half.

    Lengths within the function are fractions of the frame's side.

    Raises:
      ShapesError: the motion has no path.

    >>> first, *_, last = poses_of(np.random.default_rng(0), "falling", 0, Format(side=100))
    >>> first.y < 20, last.y > 80, first.x < 50
    (True, True, True)
    """
    moves_sideways = motion in ("swaying", "circling")
    radius = rng.uniform(0.13, 0.15) if moves_sideways else rng.uniform(0.145, 0.17)
    amplitude = 0.235 - radius
    margin = radius + 0.02
    y = rng.uniform(0.3, 0.7)
    phase = rng.uniform()
    turn = choice(rng, (-1, 1))
    turns = rng.uniform(1.2, 1.6)
    largest = rng.uniform(0.2, 0.215)
    reach = {"growing": largest, "shrinking": largest}.get(motion, radius)
    play = 0 if moves_sideways else 0.23 - reach
    x = 0.25 + 0.5 * side + rng.uniform(-play, play)

    poses = []
    for frame in range(format.frames):
        t = frame / max(format.frames - 1, 1)
        angle = 2 * math.pi * (phase + turn * turns * t)
        pose = {"x": x, "y": y, "radius": radius, "visible": True}
        match motion:
            case "rising":
                pose["y"] = 1 - margin - (1 - 2 * margin) * t
            case "falling":
                pose["y"] = margin + (1 - 2 * margin) * t
            case "swaying":
                pose["x"] = x + amplitude * math.sin(angle)
            case "circling":
                pose["x"] = x + amplitude * math.sin(angle)
                pose["y"] = y + 1.5 * amplitude * math.cos(angle)
            case "growing":
                pose["radius"] = 0.075 + (largest - 0.075) * t
            case "shrinking":
                pose["radius"] = largest + (0.075 - largest) * t
            case grammar.STILL:
                pass
            case "blinking":
                period = 0.75 * format.fps
                pose["visible"] = (frame / period + phase) % 1 < 0.5
            case _:
                raise ShapesError(f"motion {motion!r} has no path: write one in film.poses_of")
        poses.append(
            Pose(
                x=_pixels(pose["x"], format),
                y=_pixels(pose["y"], format),
                radius=_pixels(pose["radius"], format),
                visible=pose["visible"],
            )
        )
    return tuple(poses)


def background_of(rng: np.random.Generator, format: Format) -> Background:
    """Draw a background that no single window of the clip identifies.

    One texture fades into another, and brightness and hue complete one cycle over the clip. So all
    clips have nearly the same mean colour, while the windows of each clip differ in colour.
    """
    textures = (_texture(rng, format), _texture(rng, format))
    brightness, brightness_phase = rng.uniform(15, 30), rng.uniform()
    tint, tint_phase, tint_turn = rng.uniform(10, 24), rng.uniform(), choice(rng, (-1, 1))
    colours = []
    for frame in range(format.frames):
        t = frame / format.frames
        grey = 118 + brightness * math.cos(2 * math.pi * (t + brightness_phase))
        red, green, blue = (
            exact(grey + tint * math.cos(2 * math.pi * (tint_turn * t + tint_phase + k / 3)))
            for k in range(3)
        )
        colours.append((red, green, blue))
    return Background(textures, tuple(colours), noise_seed=int(rng.integers(2**31)))


def _texture(rng: np.random.Generator, format: Format) -> Texture:
    angle = rng.uniform(0, 2 * math.pi)
    speed = rng.uniform(0.01, 0.03) * format.side
    heading = rng.uniform(0, 2 * math.pi)
    return Texture(
        pattern=choice(rng, ("noise", "stripes", "checks")),
        cell=exact(rng.uniform(0.1, 0.3) * format.side),
        direction=(exact(math.cos(angle)), exact(math.sin(angle))),
        drift=(exact(speed * math.cos(heading)), exact(speed * math.sin(heading))),
        contrast=exact(rng.uniform(14, 24)),
    )


def _pixels(share: float, format: Format) -> float:
    return exact(share * format.side)
