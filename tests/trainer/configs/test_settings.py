"""Every field of every configuration refuses non-finite and non-integer values."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from trainer.configs import PRESETS
from trainer.configs import fields as fields_module
from trainer.configs.config import Config
from trainer.configs.fields import build
from trainer.configs.overrides import OverrideError, overridden, override
from trainer.tasks import finetuning
from trainer.tasks.localisation.training import LocalisationConfig

CONFIGS = [
    Config(),
    LocalisationConfig(),
    *(recipe.config for task in finetuning.TASKS.values() for recipe in task.RECIPES.values()),
]


def fields(config: Any, kind: type, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Paths of the fields of a kind, in sections too, and how many values each takes."""
    for name, hint in typing.get_type_hints(type(config)).items():
        inside = getattr(config, name)
        if dataclasses.is_dataclass(inside):
            yield from fields(inside, kind, f"{prefix}{name}.")
            continue
        arguments = typing.get_args(hint)
        if hint is kind or (isinstance(hint, types.UnionType) and kind in arguments):
            yield f"{prefix}{name}", 1
        elif typing.get_origin(hint) is tuple and arguments[0] is kind:
            yield f"{prefix}{name}", len(inside) or 1


FLOATS = [(config, path, n) for config in CONFIGS for path, n in fields(config, float)]
INTS = [(config, path, n) for config in CONFIGS for path, n in fields(config, int)]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "1e39", "-1e39", "infinity"])
def test_a_number_that_is_not_finite_is_refused_in_every_field(text):
    assert len(FLOATS) > 30
    for config, path, count in FLOATS:
        with pytest.raises(OverrideError, match=path.rpartition(".")[2]):
            override(config, [f"{path}={','.join([text] * count)}"])


@pytest.mark.parametrize("text", ["9" * 400, "9" * 5000, "1e3", "nan", "0x10"])
def test_a_whole_number_that_is_none_is_refused_in_every_field(text):
    assert len(INTS) > 40
    for config, path, count in INTS:
        with pytest.raises(OverrideError, match=rf"{path} takes an integer"):
            override(config, [f"{path}={','.join([text] * count)}"])


def test_names_of_earlier_releases_are_read_and_the_new_one_is_named_once(capsys):
    fields_module._report_renaming.cache_clear()
    settings = ["optimiser.learning_rate=0.5", "optimiser.name=adamw"]
    changed = override(Config(), settings)
    assert (changed.optimizer.learning_rate, changed.optimizer.name) == (0.5, "adamw")
    assert capsys.readouterr().err == (
        "svilm-train: 'optimiser' is now spelled 'optimizer': use the new name\n"
    )
    assert overridden(settings, changed, Config()) == [
        f"optimiser.learning_rate=0.5 would be {Config().optimizer.learning_rate}",
        f"optimiser.name=adamw would be {Config().optimizer.name}",
    ]
    values = json.loads(changed.to_json())
    values["optimiser"] = values.pop("optimizer")
    assert Config.from_json(json.dumps(values)) == changed
    with pytest.raises(OverrideError, match="has no field 'optimisers'"):
        override(Config(), ["optimisers.name=adamw"])
    with pytest.raises(OverrideError, match=r"optimizer\.name takes"):
        override(Config(), ["optimiser.name=none"])


def test_no_count_of_zero_and_no_rate_of_zero_trains_nothing():
    may_be_zero = {"seed", "cut_and_paste.from_step", "video.prefix_tokens"}
    may_be_zero |= {f"optimizer.{encoder}_rates.frozen_steps" for encoder in ("video", "text")}
    for config, path, count in INTS:
        if path not in may_be_zero:
            with pytest.raises(OverrideError):
                override(config, [f"{path}={','.join(['0'] * count)}"])
    for config, path, _ in FLOATS:
        if path.endswith("learning_rate"):
            for rate in ("0", "-0.0", "1e-50"):
                with pytest.raises(OverrideError, match="learning_rate must be above 0"):
                    override(config, [f"{path}={rate}"])
        if path.endswith("dropout"):
            with pytest.raises(OverrideError, match="must be 0 or more and below 1, got 1"):
                override(config, [f"{path}=1"])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_a_file_with_a_number_that_is_not_finite_is_refused(number):
    values = json.loads(PRESETS["tiny"].to_json())
    for section, name in (("video", "pixel_mean"), ("optimizer", "learning_rate")):
        spoilt = json.loads(json.dumps(values))
        was = spoilt[section][name]
        spoilt[section][name] = [json.loads(number)] * 3 if isinstance(was, list) else (
            json.loads(number)
        )  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name} must be finite"):
            Config.from_json(json.dumps(spoilt))
    with pytest.raises(ValueError, match="learning_rate must be finite, got inf"):
        build(LocalisationConfig, {"learning_rate": float("inf")})


@pytest.mark.parametrize(
    ("field", "value"),
    [("grouping_after", ["a"]), ("grouping_after", [None]), ("pixel_std", [[1], 1, 1])],
)
def test_a_list_of_other_items_is_refused_and_is_no_fault(field, value):
    values = json.loads(Config().to_json())
    values["video"][field] = value
    with pytest.raises(ValueError, match=field):
        Config.from_json(json.dumps(values))
