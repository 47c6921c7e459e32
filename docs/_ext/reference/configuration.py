"""Reference of configurations, from the dataclasses and the comments beside their fields."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from reference.markdown import block, entry, escaped


class Described(NamedTuple):
    """The comments of a field: on the lines before it, and on its own line."""

    before: str
    beside: str


def described(cls: type) -> dict[str, Described]:
    """Return the comments of a dataclass's fields, by name."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            before: list[str] = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#"):
                    break
                before.insert(0, line.strip().lstrip("# "))
            beside = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :]
            found[node.target.id] = Described(" ".join(before), beside.strip().lstrip("# "))
    return found


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(kind))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _as_set(value: Any) -> str:
    """Return a value as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_as_set, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _fields(cls: type, prefix: str = "") -> Iterator[str]:
    hints, comments = typing.get_type_hints(cls), described(cls)
    for field in dataclasses.fields(cls):
        kind, comment = hints[field.name], comments[field.name]
        if dataclasses.is_dataclass(kind):
            continue
        first = f"`{_type_name(kind)}`, default `{_as_set(field.default) or 'empty'}`."
        beside = comment.beside
        if beside:
            first += f" {escaped(beside[0].upper() + beside[1:])}."
        yield entry(f"`{prefix}{field.name}`", first, escaped(comment.before))


def _class(cls: type, title: str, prefix: str = "") -> str:
    """Return the fields of a dataclass, then those of its sections."""
    hints = typing.get_type_hints(cls)
    parts = [f"## {title}\n", f"{escaped(inspect.getdoc(cls) or '')}\n", *_fields(cls, prefix)]
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(kind := hints[field.name]):
            assert isinstance(kind, type)
            parts.append(_class(kind, f"Section {field.name}", f"{prefix}{field.name}."))
    return "\n".join(parts)


def page() -> str:
    """Return every field of a run's configuration."""
    from trainer.configs.config import Config

    return _class(Config, "The run")


def _differences(config: Any, default: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            yield from _differences(value, usual, f"{prefix}{field.name}.")
        elif value != usual:
            yield f"{prefix}{field.name}={_as_set(value)}"


def presets() -> str:
    """Return each preset's differences from the defaults."""
    from trainer.configs import PRESETS
    from trainer.configs.config import Config

    parts = []
    for name, config in PRESETS.items():
        changed = "\n".join(_differences(config, Config())) or "The defaults: nothing differs."
        parts.append(f"## {name}\n\n{block(changed)}")
    return "\n".join(parts)


def tasks() -> str:
    """Return the configuration and the recipes of each downstream task."""
    from trainer.tasks.finetuning import TASKS
    from trainer.tasks.localisation import training
    from trainer.tasks.task import COMMON

    parts = [f"## Settings of every fine-tuning\n\n{block(chr(10).join(COMMON))}"]
    for name, task in TASKS.items():
        cls = type(next(iter(task.RECIPES.values())).config)
        parts.append(_class(cls, f"Task {name}", "task."))
        for recipe, (config, settings) in task.RECIPES.items():
            own = [f"task.{one}" for one in _differences(config, cls())]
            changed = "\n".join([*own, *settings])
            parts.append(f"### {name}: recipe {recipe}\n\n{block(changed)}")
    usual = training.LocalisationConfig()
    parts.append(_class(type(usual), "Temporal localisation: svilm-train localise"))
    for preset, config in training.PRESETS.items():
        changed = "\n".join(_differences(config, usual)) or "The defaults: nothing differs."
        parts.append(f"### localise: preset {preset}\n\n{block(changed)}")
    return "\n".join(parts)
