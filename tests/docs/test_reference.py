"""The generated reference: complete, from the code, and safe as Markdown."""

import dataclasses
import pathlib
import re
import sys

import pytest

from pipelines.sources.reject_reasons import REASONS
from trainer.configs import PRESETS
from trainer.configs.config import Config, VideoConfig

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _extension(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "reference"]:
        del sys.modules[name]


def test_commands_list_options_with_values_and_help():
    from reference import commands

    page = commands.pipelines()
    assert "## build\n" in page
    assert "`--min-motion 0…255`\n: " in page
    assert "`--out DIR`\n: " in page and " Required.\n" in page
    assert "`SNAPSHOT`\n: " in page
    assert "`--help`" not in page
    page = commands.trainer()
    assert all(f"## {name}\n" in page for name in ("pretrain", "evaluate", "localise", "study"))
    assert "`--set FIELD=VALUE`\n: " in page


def test_configuration_has_each_field_with_default_and_reason():
    from reference import configuration

    page = configuration.page()
    for field in dataclasses.fields(VideoConfig):
        assert f"`video.{field.name}`\n: " in page
    assert "`video.frames`\n: `int`, default `32`. T.\n" in page
    # A comment beside the field, and one on the lines before it.
    assert re.search(r"`optimizer.clip_norm`\n: `float \| None`, default `1.0`\. \w", page)
    assert re.search(r"`input.on_corrupt`\n: `'stop' or 'skip'`, default `stop`\.\n\n  \w", page)


def test_a_preset_is_its_differences_and_makes_the_preset():
    from reference import configuration

    from trainer.configs.overrides import override

    for name, config in PRESETS.items():
        changed = list(configuration._differences(config, Config()))
        assert override(Config(), changed) == config, name


def test_schemas_have_comments_types_and_numbers():
    from reference import schemas

    page = schemas.page("protos/v1/clip.proto")
    assert re.search(r"`frame_time_us` = 8\n: repeated int64\. \w", page)
    assert re.search(r"`FRAME_ENCODING_PNG` = 2\n: \w", page)
    assert "Next available" not in page
    page = schemas.page("protos/v1/manifest.proto")
    assert re.search(r"`versions` = 7\n: map of string to string\. \w", page)
    assert "```text\nmanifest.json " in page


def test_each_code_has_its_stage_or_program():
    from reference import codes

    page = codes.rejects()
    assert [f"`{code}`\n: " for code in REASONS if f"`{code}`\n: " not in page] == []
    assert page.index("Stage decode") < page.index("`video_missing`") < page.index("Stage filter")
    assert re.search(r"`75`\n: Run again: \w", codes.exit_codes())


def test_prose_keeps_code_and_escapes_the_rest():
    from reference import markdown

    assert markdown.escaped("a_b of `c_d` <e>") == r"a\_b of `c_d` \<e\>"
    assert markdown.prose("files:\n\n  a.json  one\n\nend") == (
        "files:\n\n\n```text\na.json  one\n```\n\n\nend"
    )
