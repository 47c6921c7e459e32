"""*Shapes*: a synthetic corpus of small captioned videos with ground truth, easy to reproduce.

The package may import `decoding` and the packages below it.
"""

from pipelines.errors import UserError


class ShapesError(UserError):
    """An error that prevents the creation of a corpus."""
