"""Repeated options: lists are concatenated, other repetitions are errors."""

import argparse

import pytest

from pipelines.cli import source_arguments
from pipelines.cli.arguments import parsers
from pipelines.cli.commands import UsageError

BUILD = ("build", "generic", "--annotations", "a.csv", "--videos", "v", "--out", "o")
REMOVE = ("remove", "s", "--videos", "a.txt", "--out", "o")


def parsed(*words):
    arguments, rest = parsers()[0].parse_known_args(words)
    assert not rest
    return arguments


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "shard-00000-of-00016.index"])
def test_a_description_cannot_overwrite_a_snapshots_file(tmp_path, name):
    (tmp_path / "manifest.json").touch()
    with pytest.raises(UsageError, match=r"no supported extension|is a snapshot, which"):
        parsed("describe", "s", "--out", f"{tmp_path}/{name}")
    for allowed in ("s/card.html", "s/card.json", f"{tmp_path}/croissant.json"):
        assert parsed("describe", "s", "--out", allowed).out == allowed


def test_a_page_is_written_outside_snapshots(tmp_path):
    (tmp_path / "manifest.json").touch()
    for command, option in (("describe", "--out"), ("inspect", "--pictures")):
        with pytest.raises(UsageError, match="is a snapshot"):
            parsed(command, "s", option, f"{tmp_path}/card.html")


def options(parser):
    """Yield all options of a parser and its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options(command)
        elif action.option_strings:
            yield action


def test_repeated_list_options_are_concatenated():
    more = ("--exclude", "x", "y", "--exclude", "z", "--annotations", "b.csv", "c.csv")
    columns = ("--columns", "video=clip", "--columns", "end=length", "start=from")
    arguments = parsed(*BUILD, *more, *columns)
    assert arguments.exclude == ["x", "y", "z"]
    assert arguments.annotations == ["a.csv", "b.csv", "c.csv"]
    assert source_arguments.given(arguments)["columns"] == {
        "video": "clip",
        "end": "length",
        "start": "from",
    }
    assert parsed(*BUILD).exclude == []
    assert parsed(*REMOVE, "--videos", "b.txt").videos == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    "columns",
    [("--columns", "video=a", "video=b"), ("--columns", "video=a", "--columns", "video=b")],
)
def test_a_duplicate_column_is_refused(columns):
    refused = source_arguments.refusal(parsed(*BUILD, *columns))
    assert refused == "--columns has two names for video, a and b: give one"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*BUILD, "--out", "p"), "--out is given twice, 'o' and 'p': give it once"),
        ((*BUILD, "--workers=1", "--workers", "1"), "--workers is given twice, '1' and '1'"),
        ((*BUILD, "--subset=a", "--subset=b"), "--subset is given twice"),
        ((*BUILD, "--min-words=1", "--min-words=2"), "--min-words is given twice"),
        ((*REMOVE, "--out", "p"), "--out is given twice"),
        (("corpus", "o", "--seed", "1", "--seed", "2"), "--seed is given twice"),
    ],
)
def test_a_repeated_scalar_option_is_refused(words, told):
    with pytest.raises(UsageError, match=told):
        parsed(*words)


def test_every_list_option_extends_its_values():
    several = [action for action in options(parsers()[0]) if action.nargs in ("+", "*")]
    assert several
    for action in several:
        assert isinstance(action, argparse._ExtendAction), action.option_strings
