"""The grammar of *Shapes* captions: concepts, their words, and sentence forms.

A concept has synonyms, so that a model must learn meanings rather than strings. For every word,
spaCy finds exactly the two noun chunks in every sentence form. No colour starts with a vowel, so
exchanging one word never changes the article before it.
"""

from typing import Literal, NamedTuple, get_args

Slot = Literal["colour", "kind", "motion"]
SLOTS: tuple[Slot, ...] = get_args(Slot)

COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("tangerine", "rusty"),
    "cyan": ("cyan", "turquoise"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "jade"),
    "blue": ("blue", "cobalt"),
    "pink": ("pink", "rosy"),
    "white": ("white", "snowy"),
}
KINDS: dict[str, tuple[str, ...]] = {
    "ring": ("ring", "hoop"),
    "square": ("square", "box"),
    "triangle": ("triangle", "pyramid"),
    "cross": ("cross", "crucifix"),
    "star": ("star", "starlet"),
    "disc": ("disc", "ball"),
    "moon": ("moon", "crescent"),
}
MOTIONS: dict[str, tuple[str, ...]] = {
    "rising": ("rising", "climbing", "ascending"),
    "falling": ("falling", "sinking", "descending"),
    "swaying": ("swaying", "swinging", "rocking"),
    "growing": ("growing", "expanding", "swelling"),
    "shrinking": ("shrinking", "dwindling"),
    "circling": ("circling", "orbiting", "looping"),
    "blinking": ("blinking", "flashing"),
}
STILL = "still"  # motion of objects while nothing happens; absent from captions
WORDS: dict[Slot, dict[str, tuple[str, ...]]] = {
    "colour": COLOURS,
    "kind": KINDS,
    "motion": MOTIONS,
}
FORMS = (
    "A {0.phrase} is {0.motion} while a {1.phrase} is {1.motion}.",
    "A {0.phrase} is {0.motion} as a {1.phrase} is {1.motion}.",
    "A {0.phrase} is {0.motion}, and a {1.phrase} is {1.motion}.",
    "While a {0.phrase} is {0.motion}, a {1.phrase} is {1.motion}.",
)


class Named(NamedTuple):
    """One word per slot: an object's concepts, or the synonyms that a caption uses."""

    colour: str
    kind: str
    motion: str

    @property
    def phrase(self) -> str:
        """The noun phrase without its article.

        >>> Named("crimson", "hoop", "climbing").phrase
        'crimson hoop'
        """
        return f"{self.colour} {self.kind}"


def caption(form: str, first: Named, second: Named) -> str:
    """Fill a sentence form with the words of two objects.

    >>> caption(FORMS[0], Named("red", "ring", "rising"), Named("blue", "box", "rocking"))
    'A red ring is rising while a blue box is rocking.'
    """
    return form.format(first, second)
