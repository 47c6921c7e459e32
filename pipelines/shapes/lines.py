"""The content of each *Shapes* clip before filming: two objects, and the words for them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipelines.shapes import ShapesError, grammar
from pipelines.shapes.draws import (
    FAMILIES_KEY,
    ORDER_KEY,
    SPLIT_KEYS,
    Split,
    choice,
    generator,
)
from pipelines.shapes.grammar import Named, Slot

FAMILY = 6
"""Number of test clips whose captions differ from each other in only one word."""
RESERVED_TEST_CLIPS = 2_400
"""Maximum number of test clips. Train excludes the scenes of all of them, even unrendered ones."""


@dataclass(frozen=True)
class Line:
    """A caption before filming: its sentence form, and the concepts and words of each object."""

    form: str
    concepts: tuple[Named, Named]
    words: tuple[Named, Named]

    @property
    def scene(self) -> frozenset[Named]:
        """The content of the caption, independent of its words and of the order of its objects."""
        return frozenset(self.concepts)


def sample_lines(split: Split, count: int, seed: int) -> list[Line]:
    """Return the content of the first `count` clips of a split.

    `scene.sample_clips` documents the properties of the splits.

    Raises:
      ShapesError: a test count is not a multiple of `FAMILY`, or exceeds `RESERVED_TEST_CLIPS`.

    >>> len({line.scene for line in sample_lines("test", 12, seed=0)})
    12
    """
    return _test_lines(count, seed) if split == "test" else _train_lines(count, seed)


def _test_lines(count: int, seed: int) -> list[Line]:
    if count % FAMILY or not 0 <= count <= RESERVED_TEST_CLIPS:
        raise ShapesError(
            f"the number of test clips is {count}: it must be a multiple of {FAMILY}, the size of "
            f"a family, up to {RESERVED_TEST_CLIPS}"
        )
    # The order is shuffled, because otherwise each video would hold one family.
    order = generator(seed, ORDER_KEY).permutation(count)
    reserved = _reserved_lines(seed)
    return [reserved[i] for i in order]


def _train_lines(count: int, seed: int) -> list[Line]:
    reserved = {line.scene for line in _reserved_lines(seed)}
    lines = []
    for index in range(count):
        rng = generator(seed, SPLIT_KEYS["train"], index, 0)
        line = any_line(rng)
        while line.scene in reserved:
            line = any_line(rng)
        lines.append(line)
    return lines


@lru_cache(maxsize=2)
def _reserved_lines(seed: int) -> tuple[Line, ...]:
    """Return all lines that a test split may contain, family by family, without repeated scenes."""
    rng = generator(seed, FAMILIES_KEY)
    slots: list[tuple[int, Slot]] = [(thing, slot) for thing in (0, 1) for slot in grammar.SLOTS]
    lines: list[Line] = []
    reserved: set[frozenset[Named]] = set()
    while len(lines) < RESERVED_TEST_CLIPS:
        thing, slot = slots[len(lines) // FAMILY % len(slots)]
        family = _family(rng, thing, slot)
        scenes = {line.scene for line in family}
        if reserved.isdisjoint(scenes):
            reserved |= scenes
            lines += family
    return tuple(lines)


def _family(rng: np.random.Generator, thing: int, slot: Slot) -> list[Line]:
    """Return lines that differ only in one slot of one object, each with a different concept."""
    base = any_line(rng)
    taken = getattr(base.concepts[1 - thing], slot) if slot != "motion" else None
    choices = [concept for concept in grammar.WORDS[slot] if concept != taken]
    family = []
    for i in rng.permutation(len(choices))[:FAMILY]:
        concepts, words = list(base.concepts), list(base.words)
        concepts[thing] = concepts[thing]._replace(**{slot: choices[i]})
        word = choice(rng, grammar.WORDS[slot][choices[i]])
        words[thing] = words[thing]._replace(**{slot: word})
        family.append(Line(base.form, (concepts[0], concepts[1]), (words[0], words[1])))
    return family


def any_line(rng: np.random.Generator) -> Line:
    """Draw two objects of different colour and kind, with any motions."""
    colours = rng.choice(list(grammar.COLOURS), 2, replace=False)
    kinds = rng.choice(list(grammar.KINDS), 2, replace=False)
    motions = rng.choice(list(grammar.MOTIONS), 2)
    first, second = (Named(str(colours[i]), str(kinds[i]), str(motions[i])) for i in (0, 1))
    form = choice(rng, grammar.FORMS)
    return Line(form, (first, second), (synonyms(rng, first), synonyms(rng, second)))


def synonyms(rng: np.random.Generator, concepts: Named) -> Named:
    """Draw words for an object's concepts, for use in a caption."""
    return Named(
        choice(rng, grammar.COLOURS[concepts.colour]),
        choice(rng, grammar.KINDS[concepts.kind]),
        choice(rng, grammar.MOTIONS[concepts.motion]),
    )


def of_motion(rng: np.random.Generator, motion: str) -> Line:
    """Draw two objects that both make the given motion."""
    line = any_line(rng)
    first, second = (concepts._replace(motion=motion) for concepts in line.concepts)
    return Line(line.form, (first, second), (first, second))
