"""Command-line overrides of a preset, such as "video.width=128"."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable
from typing import Any

from trainer.configs.config import Config
from trainer.configs.fields import RENAMED, C, build, current_name
from trainer.errors import ExitCode, UserError


class OverrideError(UserError, ValueError):
    """A setting that names no field, or whose value is invalid for the field."""

    exit_code = ExitCode.MISUSED


def override(config: C, settings: Iterable[str]) -> C:
    """Return a configuration with some fields replaced, each parsed as its field's type.

    Args:
      config: the configuration of a run or a task to start from.
      settings: each "field=value" or "section.field=value". Lists are written "6,9,12", switches
        "true" or "false", an absent value "none". All are set first, then checked together.

    Raises:
      OverrideError: a field does not exist, a value has another type, or the settings contradict
        each other.

    >>> changed = override(Config(), ["batch=64", "video.width=96", "video.grouping_after=3,12"])
    >>> changed.batch, changed.video.width, changed.video.grouping_after
    (64, 96, (3, 12))
    """
    values = dataclasses.asdict(config)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise OverrideError(f"setting {setting!r} is not of the form field=value")
        *sections, name = path.strip().split(".")
        kind, inside = type(config), values
        for place, section in enumerate(sections):
            section = sections[place] = current_name(section, typing.get_type_hints(kind))
            kind = _field_type(kind, section, sections[:place])
            if not dataclasses.is_dataclass(kind):
                raise OverrideError(
                    f"{'.'.join(sections[: place + 1])} has no fields, in {setting!r}"
                )
            inside = inside[section]
        name = current_name(name, typing.get_type_hints(kind))
        path = ".".join([*sections, name])
        kind = _field_type(kind, name, sections)
        if dataclasses.is_dataclass(kind):
            fields = ", ".join(f"{path}.{field.name}" for field in dataclasses.fields(kind))
            raise OverrideError(f"{path} is a section: set one of {fields}")
        inside[name] = _value(kind, text.strip(), path)
    try:
        return build(type(config), json.loads(json.dumps(values)))
    except ValueError as error:
        raise OverrideError(str(error)) from None


def overridden(settings: Iterable[str], asked: Config, got: Config) -> list[str]:
    """Return the settings that a later change of the configuration undid, with its values.

    >>> overridden(["batch=64", "seed=1"], Config(batch=64, seed=1), Config(batch=32, seed=1))
    ['batch=64 would be 32']
    """
    lost = []
    for setting in settings:
        before, after = asked, got
        for name in setting.partition("=")[0].strip().split("."):
            name = RENAMED.get(name, name)
            before, after = getattr(before, name), getattr(after, name)
        if before != after:
            lost.append(f"{setting} would be {after}")
    return lost


def _field_type(section: Any, name: str, path: list[str]) -> Any:
    hints = typing.get_type_hints(section)
    if name not in hints:
        where = ".".join(path) or "the configuration"
        raise OverrideError(f"{where} has no field {name!r}; it has {', '.join(hints)}")
    return hints[name]


def _value(kind: Any, text: str, path: str) -> Any:
    """Parse `text` as a value of an annotation that occurs in Config."""
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):  # int | None
        return None if text == "none" else _value(arguments[0], text, path)
    if typing.get_origin(kind) is typing.Literal:
        return _one_of(dict(zip(arguments, arguments, strict=True)), text, path)
    if typing.get_origin(kind) is tuple:
        parts = text.split(",") if text else []
        if arguments[-1] is not Ellipsis and len(parts) != len(arguments):
            raise OverrideError(f"{path} takes {len(arguments)} values, got {text!r}")
        return [_value(arguments[0], part.strip(), path) for part in parts]
    if kind is str:
        return text
    if kind is bool:
        return _one_of({"true": True, "false": False}, text, path)
    try:
        value = kind(text)
        if not math.isfinite(value):
            raise ValueError
    except (ValueError, OverflowError):  # overflow: an integer with hundreds of digits
        expected = {int: "an integer", float: "a finite number"}[kind]
        raise OverrideError(f"{path} takes {expected}, got {text!r}") from None
    return value


def _one_of(values: dict[str, Any], text: str, path: str) -> Any:
    if text not in values:
        raise OverrideError(f"{path} takes {' or '.join(values)}, got {text!r}")
    return values[text]
