"""Numbers that must be finite: one check for all figures, rankings and files.

NaN compares as neither more nor less, so a ranking with it comes out perfect as easily as worst:
what is not finite is never ranked, averaged or written, but refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class NonFiniteError(ValueError):
    """NaN or infinity where a number must be; says of what, how many, and which is the first."""


def finite(name: str, values: Any, rows: Sequence[str] = ()) -> np.ndarray:
    """Return the values, an array, if all of them are finite.

    Args:
      name: what they are, for the message.
      values: numbers, an array of any shape and type.
      rows: names of the entries of the first axis, if they have any.

    Raises:
      NonFiniteError: naming the first that is not, and how many are not.

    >>> finite("scores", [0.5, 1.0]).tolist()
    [0.5, 1.0]
    >>> finite("scores", np.array([[0.5, 1.0], [2.0, np.nan]]), ["a", "b"])
    Traceback (most recent call last):
      ...
    trainer.finite.NonFiniteError: scores: 1 of 4 numbers is not finite, the first is nan at \
[1, 1], of b
    """
    array = np.asarray(values)
    good = np.isfinite(array)
    if good.all():
        return array
    wrong = np.argwhere(~good)
    first = wrong[0].tolist()
    at = f" at {first}" if first else ""
    of = f", of {rows[first[0]]}" if first and first[0] < len(rows) else ""
    are = "is" if len(wrong) == 1 else "are"
    raise NonFiniteError(
        f"{name}: {len(wrong):,} of {array.size:,} numbers {are} not finite, the first is "
        f"{array[tuple(first)]}{at}{of}"
    )


def finite_tensors(where: str, tensors: Mapping[str, Any]) -> None:
    """Check the tensors of a model or a file.

    Args:
      where: what they are of, for the message.
      tensors: by name; those that hold no floating-point numbers pass.

    Raises:
      NonFiniteError: naming the first tensor with a number that is not finite.

    >>> finite_tensors("model", {"bias": np.zeros(2), "ids": np.arange(2)})
    """
    for name, tensor in tensors.items():
        finite(f"{where}, tensor {name}", tensor)
