"""What happens in each clip of *Shapes*: who moves how, over which background.

A clip is drawn from (seed, split, index) alone. Two objects of different colour and kind keep to
the left and the right half of the frame, so that they never hide each other; which of the two the
caption names first is chance.
"""

import hashlib
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np

from pipelines.shapes import grammar
from pipelines.shapes.grammar import Named, Slot

T = TypeVar("T")
Split = Literal["train", "test"]
FAMILY = 6
"""Test clips whose captions differ from each other in one word only."""
RESERVED_TEST_CLIPS = 2_400
"""Train never uses the scenes of the first so many test clips, whatever number is rendered."""
_PIECE_FRAMES = (9, 22)  # of an untrimmed video's pieces: from the first up to before the second

_SPLIT_KEYS: dict[Split, int] = {"train": 1, "test": 2}
_FAMILIES_KEY = 3
_ORDER_KEY = 4
_ACTIONS_KEY = 5
_UNTRIMMED_KEY = 6
SENTENCES_KEY = 7
QUESTIONS_KEY = 8
DETECTIONS_KEY = 9


class ShapesError(Exception):
    """A corpus that cannot be made."""


@dataclass(frozen=True)
class Format:
    """How clips are filmed: `frames` of `side`² pixels at `fps`, `clips_per_video` to a file."""

    frames: int = 12
    fps: int = 6
    side: int = 64
    clips_per_video: int = 6

    @property
    def clip_us(self) -> int:
        """Length of a clip in microseconds.

        >>> Format().clip_us
        2000000
        """
        return self.frames * 1_000_000 // self.fps


@dataclass(frozen=True)
class Pose:
    """Where an object is in one frame: centre and radius in pixels, y downwards."""

    x: float
    y: float
    radius: float
    visible: bool


@dataclass(frozen=True)
class Thing:
    """An object: its concepts, the words the caption uses for them, and a pose a frame."""

    concepts: Named
    words: Named
    poses: tuple[Pose, ...]


@dataclass(frozen=True)
class Texture:
    """A pattern of `cell` pixels along `direction`, drifting by `drift` pixels a frame."""

    pattern: Literal["noise", "stripes", "checks"]
    cell: float
    direction: tuple[float, float]
    drift: tuple[float, float]
    contrast: float


@dataclass(frozen=True)
class Background:
    """Two textures that fade into each other over a colour (RGB, 0–255) that changes a frame."""

    textures: tuple[Texture, Texture]
    colours: tuple[tuple[float, float, float], ...]
    noise_seed: int


@dataclass(frozen=True)
class Clip:
    """One scene with its caption and its place in a video; times in microseconds."""

    split: Split
    index: int
    video_id: str
    start_us: int
    end_us: int
    caption: str
    things: tuple[Thing, Thing]
    background: Background
    format: Format


@dataclass(frozen=True)
class Piece:
    """A part of an untrimmed video: the clip, and the motion of both its objects, if they move."""

    clip: Clip
    motion: str

    @property
    def start_us(self) -> int:
        """Where it begins in its video."""
        return self.clip.start_us

    @property
    def end_us(self) -> int:
        """Where it ends in its video."""
        return self.clip.end_us


@dataclass(frozen=True)
class Untrimmed:
    """A video in which things happen at times only."""

    split: Split
    video_id: str
    pieces: tuple[Piece, ...]

    @property
    def frames(self) -> int:
        """Of the whole video."""
        return sum(piece.clip.format.frames for piece in self.pieces)

    @property
    def end_us(self) -> int:
        """The video's length, microseconds."""
        return self.pieces[-1].end_us


@dataclass(frozen=True)
class _Line:
    """A caption before it is filmed: its sentence form, and concepts and words of each object."""

    form: str
    concepts: tuple[Named, Named]
    words: tuple[Named, Named]

    @property
    def scene(self) -> frozenset[Named]:
        """What is told, whichever words tell it and whichever object comes first."""
        return frozenset(self.concepts)


def sample_clips(split: Split, count: int, seed: int, format: Format | None = None) -> list[Clip]:
    """Draws the first `count` clips of a split.

    Every test clip has five others from which its caption differs in one word, and no two test
    clips show the same scene. No scene (two objects with their motions, in either order) of the
    test split is in train.

    Raises:
      ShapesError: a test count that is no multiple of `FAMILY` or above `RESERVED_TEST_CLIPS`.

    >>> a, b = sample_clips("train", 2, seed=0)
    >>> a.start_us, a.end_us, b.start_us, a.video_id == b.video_id
    (0, 2000000, 2000000, True)
    """
    format = format or Format()
    lines = _test_lines(count, seed) if split == "test" else _train_lines(count, seed)
    return [_film(line, split, index, seed, format) for index, line in enumerate(lines)]


def sample_actions(count: int, seed: int, format: Format | None = None) -> list[Clip]:
    """Draws clips whose two objects make the same motion: all motions in turn.

    >>> [clip.things[1].concepts.motion for clip in sample_actions(8, seed=0)][-2:]
    ['blinking', 'rising']
    """
    format = format or Format()
    motions = [*grammar.MOTIONS]
    clips = []
    for index in range(count):
        line = _of_motion(_generator(seed, _ACTIONS_KEY, index, 0), motions[index % len(motions)])
        rng = _generator(seed, _ACTIONS_KEY, index, 1)
        clips.append(_drawn(line, rng, "train", index, "", 0, format))
    return clips


def sample_untrimmed(split: Split, count: int, seed: int) -> list[Untrimmed]:
    """Draws videos of six pieces of 1.5 to 3.5 s; in about half of them both objects move alike.

    Of the others, in which nothing happens, half show objects that stand still and half show none.
    No two pieces with the same motion follow one another, so that a piece is what can be told.

    >>> [piece.motion for piece in sample_untrimmed("train", 1, seed=0)[0].pieces]
    ['', '', 'growing', '', 'swaying', 'shrinking']
    """
    return [_untrimmed(split, index, seed) for index in range(count)]


def _untrimmed(split: Split, index: int, seed: int) -> Untrimmed:
    rng = _generator(seed, _UNTRIMMED_KEY, _SPLIT_KEYS[split], index)
    video_id = _video_id(seed, f"untrimmed/{split}", index)
    happens = rng.permutation([True] * 3 + [False] * 3)
    pieces: list[Piece] = []
    start_frame, before = 0, ""
    for something in happens:
        motion = ""
        if something:
            motion = choice(rng, [one for one in grammar.MOTIONS if one != before])
        format = Format(frames=int(rng.integers(*_PIECE_FRAMES)))
        line = _of_motion(rng, motion or grammar.STILL)
        start_us = start_frame * 1_000_000 // format.fps
        clip = _drawn(line, rng, split, index, video_id, start_us, format)
        if not something and rng.integers(2):
            clip = replace(clip, things=(_hidden(clip.things[0]), _hidden(clip.things[1])))
        start_frame += format.frames
        clip = replace(clip, end_us=start_frame * 1_000_000 // format.fps)
        pieces.append(Piece(clip, motion))
        before = motion
    return Untrimmed(split, video_id, tuple(pieces))


def _hidden(thing: Thing) -> Thing:
    return replace(thing, poses=tuple(replace(pose, visible=False) for pose in thing.poses))


def _of_motion(rng: np.random.Generator, motion: str) -> _Line:
    """Any two objects that both make a motion."""
    line = _any_line(rng)
    first, second = (concepts._replace(motion=motion) for concepts in line.concepts)
    return _Line(line.form, (first, second), (first, second))


# Captions


def _test_lines(count: int, seed: int) -> list[_Line]:
    if count % FAMILY or not 0 <= count <= RESERVED_TEST_CLIPS:
        raise ShapesError(
            f"{count} test clips: take a multiple of {FAMILY} up to {RESERVED_TEST_CLIPS}, "
            f"because test clips come in families of {FAMILY}"
        )
    # Shuffled, so that a video does not hold one family.
    order = _generator(seed, _ORDER_KEY).permutation(count)
    reserved = _reserved_lines(seed)
    return [reserved[i] for i in order]


def _train_lines(count: int, seed: int) -> list[_Line]:
    reserved = {line.scene for line in _reserved_lines(seed)}
    lines = []
    for index in range(count):
        rng = _generator(seed, _SPLIT_KEYS["train"], index, 0)
        line = _any_line(rng)
        while line.scene in reserved:
            line = _any_line(rng)
        lines.append(line)
    return lines


@lru_cache(maxsize=2)
def _reserved_lines(seed: int) -> tuple[_Line, ...]:
    """All lines that a test split may hold: family after family, no scene twice."""
    rng = _generator(seed, _FAMILIES_KEY)
    slots: list[tuple[int, Slot]] = [(thing, slot) for thing in (0, 1) for slot in grammar.SLOTS]
    lines: list[_Line] = []
    told: set[frozenset[Named]] = set()
    while len(lines) < RESERVED_TEST_CLIPS:
        thing, slot = slots[len(lines) // FAMILY % len(slots)]
        family = _family(rng, thing, slot)
        scenes = {line.scene for line in family}
        if told.isdisjoint(scenes):
            told |= scenes
            lines += family
    return tuple(lines)


def _family(rng: np.random.Generator, thing: int, slot: Slot) -> list[_Line]:
    """Lines that differ in one slot of one object, each with another concept there."""
    base = _any_line(rng)
    taken = getattr(base.concepts[1 - thing], slot) if slot != "motion" else None
    choices = [concept for concept in grammar.WORDS[slot] if concept != taken]
    family = []
    for i in rng.permutation(len(choices))[:FAMILY]:
        concepts, words = list(base.concepts), list(base.words)
        concepts[thing] = concepts[thing]._replace(**{slot: choices[i]})
        word = choice(rng, grammar.WORDS[slot][choices[i]])
        words[thing] = words[thing]._replace(**{slot: word})
        family.append(_Line(base.form, (concepts[0], concepts[1]), (words[0], words[1])))
    return family


def _any_line(rng: np.random.Generator) -> _Line:
    colours = rng.choice(list(grammar.COLOURS), 2, replace=False)
    kinds = rng.choice(list(grammar.KINDS), 2, replace=False)
    motions = rng.choice(list(grammar.MOTIONS), 2)
    first, second = (Named(str(colours[i]), str(kinds[i]), str(motions[i])) for i in (0, 1))
    form = choice(rng, grammar.FORMS)
    return _Line(form, (first, second), (synonyms(rng, first), synonyms(rng, second)))


def synonyms(rng: np.random.Generator, concepts: Named) -> Named:
    """Words for an object's concepts, as a caption may have them."""
    return Named(
        choice(rng, grammar.COLOURS[concepts.colour]),
        choice(rng, grammar.KINDS[concepts.kind]),
        choice(rng, grammar.MOTIONS[concepts.motion]),
    )


# Scenes


def _film(line: _Line, split: Split, index: int, seed: int, format: Format) -> Clip:
    rng = _generator(seed, _SPLIT_KEYS[split], index, 1)
    video, place = divmod(index, format.clips_per_video)
    video_id, start_us = _video_id(seed, split, video), place * format.clip_us
    return _drawn(line, rng, split, index, video_id, start_us, format)


def _drawn(
    line: _Line,
    rng: np.random.Generator,
    split: Split,
    index: int,
    video_id: str,
    start_us: int,
    format: Format,
) -> Clip:
    first_side = int(rng.integers(2))
    things = tuple(
        Thing(concepts, words, _poses(rng, concepts.motion, side, format))
        for concepts, words, side in zip(
            line.concepts, line.words, (first_side, 1 - first_side), strict=True
        )
    )
    return Clip(
        split=split,
        index=index,
        video_id=video_id,
        start_us=start_us,
        end_us=start_us + format.clip_us,
        caption=grammar.caption(line.form, *line.words),
        things=(things[0], things[1]),
        background=_background(rng, format),
        format=format,
    )


def _poses(rng: np.random.Generator, motion: str, side: int, format: Format) -> tuple[Pose, ...]:
    """An object's path inside its half of the frame; lengths below are parts of the side."""
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
                raise ShapesError(f"motion {motion!r} has no path: write one in scene._poses")
        poses.append(
            Pose(
                x=_pixels(pose["x"], format),
                y=_pixels(pose["y"], format),
                radius=_pixels(pose["radius"], format),
                visible=pose["visible"],
            )
        )
    return tuple(poses)


def _background(rng: np.random.Generator, format: Format) -> Background:
    """A background that no single window gives away.

    The texture fades into another, and brightness and hue go once round over the clip, so that
    all clips have much the same mean colour and every clip's own windows differ in it.
    """
    textures = (_texture(rng, format), _texture(rng, format))
    brightness, brightness_phase = rng.uniform(15, 30), rng.uniform()
    tint, tint_phase, tint_turn = rng.uniform(10, 24), rng.uniform(), choice(rng, (-1, 1))
    colours = []
    for frame in range(format.frames):
        t = frame / format.frames
        grey = 118 + brightness * math.cos(2 * math.pi * (t + brightness_phase))
        red, green, blue = (
            _exact(grey + tint * math.cos(2 * math.pi * (tint_turn * t + tint_phase + k / 3)))
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
        cell=_exact(rng.uniform(0.1, 0.3) * format.side),
        direction=(_exact(math.cos(angle)), _exact(math.sin(angle))),
        drift=(_exact(speed * math.cos(heading)), _exact(speed * math.sin(heading))),
        contrast=_exact(rng.uniform(14, 24)),
    )


# Numbers


def generator_of(clip: Clip, seed: int, purpose: int, number: int = 0) -> np.random.Generator:
    """A source of numbers for one purpose and clip."""
    return _generator(seed, purpose, _SPLIT_KEYS[clip.split], clip.index, number)


def _generator(*key: int) -> np.random.Generator:
    """A source of numbers that are those of the key alone."""
    return np.random.default_rng(np.random.SeedSequence(key))


def choice(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of some options, each as likely as another."""
    return options[int(rng.integers(len(options)))]


def _pixels(share: float, format: Format) -> float:
    return _exact(share * format.side)


def _exact(value: float) -> float:
    """Rounds to 1/256, so that the last bit of a machine's sine does not reach the pixels."""
    return round(value * 256) / 256


def _video_id(seed: int, split: str, video: int) -> str:
    """Eleven letters and digits, as on YouTube."""
    letters = string.ascii_letters + string.digits
    digest = hashlib.sha256(f"shapes/{seed}/{split}/{video}".encode()).digest()
    return "".join(letters[byte % len(letters)] for byte in digest[:11])
