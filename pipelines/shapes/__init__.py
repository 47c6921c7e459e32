"""*Shapes*: a corpus of small captioned videos that anyone can render, with its ground truth."""


class ShapesError(Exception):
    """A corpus that cannot be made."""
