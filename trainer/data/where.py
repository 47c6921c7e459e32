"""Expressions that keep some records by the values of columns, such as "score > 0.3".

The grammar is a part of Python's: column names, numbers, the comparisons < <= > >= == !=, `and`,
`or`, `not`, parentheses, and `is None` for a missing value (NaN). Nothing is evaluated by Python.

A comparison with a missing value is neither true nor false, as in SQL. So `score < 0.3` and
`not score < 0.3` both drop a clip without a score. A record is kept if the expression is true.
"""

import ast
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from trainer.errors import UserError

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_LONGEST = 10_000  # characters; Python's parser recurses
_LARGEST = 3.4e38  # of a float32
_GRAMMAR = 'such as "score > 0.3 and not (cluster == 7 or score is None)"'


class WhereError(UserError, ValueError):
    """An expression that is not understood."""


class _Truth(NamedTuple):
    """The records for which an expression is true, and those for which it is false."""

    true: Bool[np.ndarray, " n"]
    false: Bool[np.ndarray, " n"]


def names(expression: str) -> list[str]:
    """Return the columns that an expression names, and check the expression.

    Raises:
      WhereError: it is not understood.

    >>> names("score > 0.3 and (cluster != 7 or score is None)")
    ['cluster', 'score']
    """
    tree = _parse(expression)
    _truth(tree, expression, _AnyColumn())
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})


def holds(expression: str, columns: Mapping[str, np.ndarray]) -> Bool[np.ndarray, " n"]:
    """Return for which records an expression is true.

    Args:
      expression: the expression.
      columns: the values [n] of each column that it names.

    Raises:
      WhereError: it is not understood.

    >>> score = np.array([0.1, 0.5, np.nan], np.float32)
    >>> [holds(text, {"score": score}).tolist() for text in ("score > 0.3", "not score > 0.3")]
    [[False, True, False], [True, False, False]]
    """
    return _truth(_parse(expression), expression, columns).true


class _AnyColumn(dict[str, np.ndarray]):
    """Columns of every name, without records."""

    def __missing__(self, _: str) -> np.ndarray:
        return np.zeros(0, np.float32)


def _parse(expression: str) -> ast.expr:
    try:
        if len(expression) > _LONGEST:
            raise ValueError(f"it has {len(expression):,} characters")
        return ast.parse(expression.strip(), mode="eval").body
    except SyntaxError as error:
        why = f"{error.msg} at character {error.offset or 0}"
    except (ValueError, RecursionError, MemoryError) as error:  # NUL, or nested too deeply
        why = str(error) or "it is nested too deeply"
    raise WhereError(f"the expression {expression!r:.200} is not understood ({why}): {_GRAMMAR}")


def _truth(node: ast.expr, expression: str, columns: Mapping[str, np.ndarray]) -> _Truth:
    try:
        return _of(node, columns)
    except RecursionError:
        why = "it is nested too deeply"
    except _UnknownError as error:
        why = f"{error}"
    raise WhereError(f"the expression {expression!r:.200} is not understood ({why}): {_GRAMMAR}")


class _UnknownError(Exception):
    """A part of an expression that is not in the grammar."""


def _of(node: ast.expr, columns: Mapping[str, np.ndarray]) -> _Truth:
    if isinstance(node, ast.BoolOp):
        parts = [_of(part, columns) for part in node.values]
        return functools.reduce(_both if isinstance(node.op, ast.And) else _either, parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        true, false = _of(node.operand, columns)
        return _Truth(false, true)
    if not isinstance(node, ast.Compare):
        raise _UnknownError(f"{ast.unparse(node)!r:.80} is no comparison")
    sides = [node.left, *node.comparators]
    pairs = zip(sides, node.ops, sides[1:], strict=False)
    return functools.reduce(_both, [_compared(*pair, columns) for pair in pairs])


def _both(a: _Truth, b: _Truth) -> _Truth:
    return _Truth(a.true & b.true, a.false | b.false)


def _either(a: _Truth, b: _Truth) -> _Truth:
    return _Truth(a.true | b.true, a.false & b.false)


def _compared(
    left: ast.expr, op: ast.cmpop, right: ast.expr, columns: Mapping[str, np.ndarray]
) -> _Truth:
    if isinstance(op, ast.Is | ast.IsNot):
        if not isinstance(left, ast.Name) or not _is_none(right):
            raise _UnknownError("`is` compares a column with None")
        none = _is_missing(columns[left.id])
        return _Truth(none, ~none) if isinstance(op, ast.Is) else _Truth(~none, none)
    compare = _COMPARISONS.get(type(op))
    if compare is None:
        raise _UnknownError("`in` is not a comparison of numbers")
    a, b = _value(left, columns), _value(right, columns)
    if not isinstance(left, ast.Name) and not isinstance(right, ast.Name):
        raise _UnknownError(f"{ast.unparse(left)!r:.40} is compared with no column")
    true = compare(a, b)
    known = ~(_is_missing(a) | _is_missing(b))
    return _Truth(true & known, ~true & known)


def _value(node: ast.expr, columns: Mapping[str, np.ndarray]) -> np.ndarray | int | float:
    if isinstance(node, ast.Name):
        return columns[node.id]
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    number = node.value if isinstance(node, ast.Constant) else None
    if isinstance(number, int | float) and not isinstance(number, bool):
        if not abs(number) <= (2**63 - 1 if isinstance(number, int) else _LARGEST):
            raise _UnknownError(f"{number!s:.40} is too large")
        return sign * number
    raise _UnknownError(f"{ast.unparse(node)!r:.80} is no column and no number")


def _is_missing(value: np.ndarray | int | float) -> Bool[np.ndarray, " *n"]:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.isnan(value)
    return np.zeros(np.shape(value), bool)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
