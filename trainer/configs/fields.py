"""Checks of configuration fields, and the construction of configurations from JSON."""

import dataclasses
import functools
import math
import types
from collections.abc import Collection
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    runtime_checkable,
)

from trainer import progress

# Minimum and maximum positive float32 numbers. In a computation, smaller ones become 0 and larger
# ones infinite.
_LEAST, _MOST = 1.2e-38, 3.4e38

# Old names of fields in earlier releases, and their current names.
RENAMED = {"optimiser": "optimizer"}


@runtime_checkable
class AnyDataclass(Protocol):
    """An instance of a dataclass, such as a configuration or a section of one."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


C = TypeVar("C", bound=AnyDataclass)
T = TypeVar("T")  # a dataclass: type[C] cannot be checked at runtime


def check_above(part: str, name: str, value: float | int) -> None:
    """Check that a value is above 0 and representable in float32.

    Raises:
      ValueError: it is not. The message names the field.
    """
    if not _LEAST <= value <= _MOST:
        raise ValueError(f"{part}: {name} must be above 0, got {value:g}")


def check_counts(part: AnyDataclass, name: str, but: tuple[str, ...] = ()) -> None:
    """Check that every integer field is 1 or more, except those named in `but`.

    Raises:
      ValueError: a field is not. The message names it.
    """
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if type(value) is int and field.name not in but and value < 1:
            raise ValueError(f"{name}: {field.name} must be 1 or more, got {value}")


def check_range(
    part: str,
    name: str,
    value: float | int,
    least: float,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Check that a value is in [`least`, `most`] and less than `below`.

    Raises:
      ValueError: it is not. The message names the field.
    """
    if not (least <= value <= most and value < below):
        to = "" if most == math.inf else f" and {most:g} or less"
        to = to if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{part}: {name} must be {least:g} or more{to}, got {value:g}")


def current_name(name: str, fields: Collection[str]) -> str:
    """Return a field's current name, given its current or an earlier name.

    >>> current_name("optimiser", ["optimizer"]), current_name("optimiser", ["batch"])
    ('optimizer', 'optimiser')
    """
    new = RENAMED.get(name)
    if new is None or new not in fields:
        return name
    _report_renaming(name, new)
    return new


@functools.cache  # print once per name, not per checkpoint
def _report_renaming(name: str, new: str) -> None:
    progress.warn(f"svilm-train: {name!r} is now spelled {new!r}: use the new name")


def build(kind: type[T], values: object) -> T:
    """Build a configuration, or a section of one, from parsed JSON.

    Args:
      kind: the dataclass to build.
      values: its fields, by name.

    Raises:
      ValueError: a field is unknown, or a value is invalid or contradicts another.
    """
    cls: type = kind
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} must be an object with its fields")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    names = {name: current_name(name, fields) for name in values}
    for old, name in names.items():
        if old != name and name in values:
            raise ValueError(
                f"{cls.__name__} has both {old} and {name}, which are the same field: leave one out"
            )
    values = {names[name]: value for name, value in values.items()}
    unknown = sorted(values.keys() - fields.keys())
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(unknown)}: its fields are {sorted(fields)}"
        )
    built = {}
    for name, value in values.items():
        of_field = fields[name].type
        if dataclasses.is_dataclass(of_field) and isinstance(of_field, type):
            value = build(of_field, value)
        else:
            value = tuple(value) if isinstance(value, list) else value
            if not _fits(value, of_field):
                raise ValueError(f"{cls.__name__}: {name} cannot be {value!r:.100}")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not abs(one) <= _MOST:  # float32's maximum
                raise ValueError(f"{cls.__name__}: {name} must be finite, got {one:g}")
        built[name] = value
    return cls(**built)


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a JSON value has a field's type.

    >>> _fits(1, float), _fits(True, int), _fits(None, int | None), _fits("a", Literal["b"])
    (True, False, True, False)
    >>> _fits((1, 2.5), tuple[float, float]), _fits(("a",), tuple[int, ...])
    (True, False)
    """
    if kind in (bool, int, str):
        return type(value) is kind
    if kind is float:
        return type(value) in (int, float)
    if get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(kind))
    if get_origin(kind) in (types.UnionType, Union):
        return any(_fits(value, one) for one in get_args(kind))
    if kind is types.NoneType:
        return value is None
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if not isinstance(value, tuple):
            return False
        if items[-1] is not ...:
            return len(value) == len(items) and all(map(_fits, value, items))
        return all(_fits(item, items[0]) for item in value)
    return True
