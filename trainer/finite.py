"""One check that figures, rankings and files hold finite numbers only.

NaN compares as neither greater nor less, so a ranking with NaN comes out perfect as easily as
worst. A number that is not finite is therefore never ranked, averaged or written: it raises an
error with its name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.errors import UserError


class NonFiniteError(UserError, ValueError):
    """NaN or infinity in numbers that must be finite, with their name, count and first index."""


def finite(name: str, values: Any, rows: Sequence[str] = ()) -> np.ndarray:
    """Return the values as an array if all of them are finite.

    Args:
      name: the name of the values, for the message.
      values: numbers, an array of any shape and type.
      rows: names of the entries of the first axis, if they have names.

    Raises:
      NonFiniteError: a value is not finite. The message names the first one and their number.

    >>> finite("scores", [0.5, 1.0]).tolist()
    [0.5, 1.0]
    >>> finite("scores", np.array([[0.5, 1.0], [2.0, np.nan]]), ["a", "b"])
    Traceback (most recent call last):
      ...
    trainer.finite.NonFiniteError: scores: 1 of 4 values is not finite, first nan at [1, 1] (b)
    """
    array = np.asarray(values)
    good = np.isfinite(array)
    if good.all():
        return array
    wrong = np.argwhere(~good)
    first = wrong[0].tolist()
    at = f" at {first}" if first else ""
    row = f" ({rows[first[0]]})" if first and first[0] < len(rows) else ""
    are = "is" if len(wrong) == 1 else "are"
    raise NonFiniteError(
        f"{name}: {len(wrong):,} of {array.size:,} values {are} not finite, first "
        f"{array[tuple(first)]}{at}{row}"
    )


def finite_tensors(where: str, tensors: Mapping[str, Any]) -> None:
    """Check that the tensors of a model or a file are finite.

    Args:
      where: the name of the model or file, for the message.
      tensors: the tensors by name. Those without floating-point numbers pass.

    Raises:
      NonFiniteError: a number is not finite. The message names the first such tensor.

    >>> finite_tensors("model", {"bias": np.zeros(2), "ids": np.arange(2)})
    """
    for name, tensor in tensors.items():
        finite(f"{where}, tensor {name}", tensor)
