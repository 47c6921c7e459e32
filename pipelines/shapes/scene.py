"""The scene of each *Shapes* clip: its objects, their motions, and the background.

A clip depends only on (seed, split, index). It has two objects of different colour and kind. One
stays in the left half of the frame, the other in the right half, so they never occlude each other.
The caption names either of the two first, at random.
"""

import hashlib
import string
from dataclasses import dataclass, replace

import numpy as np

from pipelines.shapes import grammar
from pipelines.shapes.draws import (
    ACTIONS_KEY,
    SPLIT_KEYS,
    UNTRIMMED_KEY,
    Split,
    choice,
    generator,
)
from pipelines.shapes.film import Background, Format, Pose, background_of, poses_of
from pipelines.shapes.grammar import Named
from pipelines.shapes.lines import Line, of_motion, sample_lines

_PIECE_FRAMES = (9, 22)  # range of frames of an untrimmed video's pieces, end exclusive


@dataclass(frozen=True)
class Thing:
    """An object: its concepts, the caption's words for them, and one pose per frame."""

    concepts: Named
    words: Named
    poses: tuple[Pose, ...]


@dataclass(frozen=True)
class Clip:
    """A scene with its caption and its span in a video, in microseconds."""

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
    """A part of an untrimmed video: a clip, and its objects' common motion, or "" if none."""

    clip: Clip
    motion: str

    @property
    def start_us(self) -> int:
        """Start of the piece in its video, in microseconds."""
        return self.clip.start_us

    @property
    def end_us(self) -> int:
        """End of the piece in its video, in microseconds."""
        return self.clip.end_us


@dataclass(frozen=True)
class Untrimmed:
    """A video that shows motions only in some of its pieces."""

    split: Split
    video_id: str
    pieces: tuple[Piece, ...]

    @property
    def frames(self) -> int:
        """Number of frames of the whole video."""
        return sum(piece.clip.format.frames for piece in self.pieces)

    @property
    def end_us(self) -> int:
        """Duration of the video in microseconds."""
        return self.pieces[-1].end_us


def sample_clips(split: Split, count: int, seed: int, format: Format | None = None) -> list[Clip]:
    """Draw the first `count` clips of a split.

    For every test clip, the captions of five others differ from its caption in one word. No two
    test clips show the same scene (two objects with their motions, in either order). No scene of
    the test split occurs in train.

    Raises:
      ShapesError: a test count is not a multiple of `FAMILY`, or exceeds `RESERVED_TEST_CLIPS`.

    >>> a, b = sample_clips("train", 2, seed=0)
    >>> a.start_us, a.end_us, b.start_us, a.video_id == b.video_id
    (0, 2000000, 2000000, True)
    """
    format = format or Format()
    lines = sample_lines(split, count, seed)
    return [_film(line, split, index, seed, format) for index, line in enumerate(lines)]


def sample_actions(count: int, seed: int, format: Format | None = None) -> list[Clip]:
    """Draw clips whose two objects make the same motion, cycling through all motions.

    >>> [clip.things[1].concepts.motion for clip in sample_actions(8, seed=0)][-2:]
    ['blinking', 'rising']
    """
    format = format or Format()
    motions = [*grammar.MOTIONS]
    clips = []
    for index in range(count):
        line = of_motion(generator(seed, ACTIONS_KEY, index, 0), motions[index % len(motions)])
        rng = generator(seed, ACTIONS_KEY, index, 1)
        clips.append(_drawn(line, rng, "train", index, "", 0, format))
    return clips


def sample_untrimmed(split: Split, count: int, seed: int) -> list[Untrimmed]:
    """Draw videos of six pieces of 1.5 to 3.5 s, in three of which both objects move alike.

    Nothing happens in the other pieces: each shows still objects or no objects, with equal
    probability. Adjacent pieces with motions have different ones, so that pieces are
    distinguishable.

    >>> [piece.motion for piece in sample_untrimmed("train", 1, seed=0)[0].pieces]
    ['', '', 'growing', '', 'swaying', 'shrinking']
    """
    return [_untrimmed(split, index, seed) for index in range(count)]


def _untrimmed(split: Split, index: int, seed: int) -> Untrimmed:
    rng = generator(seed, UNTRIMMED_KEY, SPLIT_KEYS[split], index)
    video_id = _video_id(seed, f"untrimmed/{split}", index)
    happens = rng.permutation([True] * 3 + [False] * 3)
    pieces: list[Piece] = []
    start_frame, before = 0, ""
    for something in happens:
        motion = ""
        if something:
            motion = choice(rng, [one for one in grammar.MOTIONS if one != before])
        format = Format(frames=int(rng.integers(*_PIECE_FRAMES)))
        line = of_motion(rng, motion or grammar.STILL)
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


def _film(line: Line, split: Split, index: int, seed: int, format: Format) -> Clip:
    rng = generator(seed, SPLIT_KEYS[split], index, 1)
    video, place = divmod(index, format.clips_per_video)
    video_id, start_us = _video_id(seed, split, video), place * format.clip_us
    return _drawn(line, rng, split, index, video_id, start_us, format)


def _drawn(
    line: Line,
    rng: np.random.Generator,
    split: Split,
    index: int,
    video_id: str,
    start_us: int,
    format: Format,
) -> Clip:
    first_side = int(rng.integers(2))
    things = tuple(
        Thing(concepts, words, poses_of(rng, concepts.motion, side, format))
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
        background=background_of(rng, format),
        format=format,
    )


def _video_id(seed: int, split: str, video: int) -> str:
    """Return an id of eleven letters and digits, like YouTube's."""
    letters = string.ascii_letters + string.digits
    digest = hashlib.sha256(f"shapes/{seed}/{split}/{video}".encode()).digest()
    return "".join(letters[byte % len(letters)] for byte in digest[:11])


def generator_of(clip: Clip, seed: int, purpose: int, number: int = 0) -> np.random.Generator:
    """Return a random generator for one purpose and clip."""
    return generator(seed, purpose, SPLIT_KEYS[clip.split], clip.index, number)
