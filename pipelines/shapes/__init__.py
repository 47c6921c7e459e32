"""*Shapes*: a corpus of small captioned videos that anyone can render, with its ground truth.

It may import decoding and what is below it.
"""


class ShapesError(Exception):
    """A corpus that cannot be made."""
