import argparse
import logging
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from trainer import progress
from trainer.cli import logs, main
from trainer.cli.main import _parser


def options(*words):
    parser = argparse.ArgumentParser()
    logs.add(parser)
    return parser.parse_args(words)


def say_at_each_level():
    progress.warn("a printed warning")
    progress.LOGGER.info("an own note")
    progress.LOGGER.debug("an own detail")
    logging.getLogger("another").warning("a library's warning")
    logging.getLogger("another").info("a library's note")
    logging.getLogger("absl").error("an error that the command reports")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], ["a library's warning"]),
        (["-v"], ["an own note", "a library's warning", "an error that the command reports"]),
        (
            ["-vv"],
            [
                *("an own note", "an own detail", "a library's warning", "a library's note"),
                "an error that the command reports",
            ],
        ),
    ],
)
def test_verbosity(capsys, words, shown):
    with logs.configured(options(*words), ["test"]):
        say_at_each_level()
    printed, *lines = [
        line for line in capsys.readouterr().err.splitlines() if not line.endswith("command: test")
    ]
    assert printed == "a printed warning"
    assert [line.partition(": ")[2] for line in lines] == shown


def test_a_log_file_has_time_level_and_process_and_is_appended_to(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_text("before\n")
    with logs.configured(options(f"--log-file={path}"), ["pretrain"]):
        say_at_each_level()
        try:
            raise KeyError("inside")
        except KeyError:
            progress.LOGGER.exception("failed")
    before, *lines = path.read_text(encoding="utf-8").splitlines()
    assert before == "before"
    stamp = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z (?P<level>\w+) {os.getpid()} "
    found = [re.match(stamp + "(?P<rest>.*)", line) for line in lines]
    assert [(one["level"], one["rest"]) for one in found if one] == [
        ("INFO", "svilm.trainer: command: pretrain"),
        ("WARNING", "svilm.trainer: a printed warning"),
        ("INFO", "svilm.trainer: an own note"),
        ("WARNING", "another: a library's warning"),
        ("ERROR", "absl: an error that the command reports"),
        ("ERROR", "svilm.trainer: failed"),
    ]
    assert lines[-1] == "KeyError: 'inside'"


@pytest.mark.parametrize(
    "secret",
    [
        "gs://bucket/a?X-Goog-Signature=SECRET&x=1",
        "https://me:SECRET@host/path",
        "--wandb-token SECRET",
        "{'google_api_key': 'SECRET'}",
        "Authorization: Bearer SECRET",
        "password=SECRET",
    ],
)
def test_secrets_are_hidden(tmp_path, secret):
    with logs.configured(options(f"--log-file={tmp_path / 'log'}"), [secret]):
        progress.LOGGER.warning("refused: %s", secret)
    text = (tmp_path / "log").read_text()
    assert "SECRET" not in text and text.count("***") >= 2


def test_no_prose_is_hidden():
    prose = "the tokenizer's tokens: 512, at 12:30: gs://bucket/run@first"
    assert logs.without_secrets(prose) == prose


def test_a_command_logs_its_error_and_restores_logging(tmp_path, capsys):
    root, own = logging.getLogger(), logging.getLogger("svilm")
    before = (root.level, [*root.handlers], own.level, [*own.handlers])
    path = tmp_path / "log"
    argv = ["search", "a ring", f"--run={tmp_path / 'none'}", "--snapshot=x", f"--log-file={path}"]
    assert main.main(argv) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f" ERROR {os.getpid()} svilm.trainer: {line}\n" in path.read_text()
    assert (root.level, [*root.handlers], own.level, [*own.handlers]) == before


def test_a_fault_is_logged_with_its_traceback(tmp_path, capsys, monkeypatch):
    def broken(folder):
        raise TypeError("a fault")

    monkeypatch.setattr("trainer.runs.checkpoint.load", broken)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = tmp_path / "log"
    argv = ["search", "a ring", "--run=r", "--snapshot=x", f"--log-file={path}"]
    assert main.main(argv) == os.EX_SOFTWARE
    assert "internal error: TypeError: a fault" in capsys.readouterr().err
    assert "CRITICAL" in path.read_text() and "in broken" in path.read_text()


def test_a_log_file_that_cannot_be_written_is_one_error(tmp_path, capsys):
    argv = ["search", "a ring", "--run=r", "--snapshot=x", f"--log-file={tmp_path / 'no' / 'log'}"]
    assert main.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--log-file" in line and str(tmp_path / "no" / "log") in line


def test_every_command_has_the_options():
    whole: Any = _parser()
    parsers = whole._subparsers._group_actions[0].choices
    assert len(parsers) > 9
    for parser in parsers.values():
        assert {"-v", "--verbose", "--log-file"} <= set(parser._option_string_actions)


def test_a_child_command_gets_the_same_options():
    words = ["-vv", "--log-file=a b"]
    given = options(*words)
    assert options(*logs.options(given)) == given


LIBRARY = """
import logging, os, sys, warnings
import jax, orbax.checkpoint, gcsfs  # They configure logging themselves, at their import.
def state():
    return {
        name: (logger.level, [str(one) for one in logger.handlers], logger.disabled)
        for name, logger in [("root", logging.root), *logging.root.manager.loggerDict.items()]
        if isinstance(logger, logging.Logger) and not name.startswith("svilm")
    }, logging.root.manager.disable, [*warnings.filters]
loggers, disabled, filters = state()
environment = dict(os.environ)
import svilm
svilm.load(sys.argv[1])
after, disabled_after, filters_after = state()
assert {name: after[name] for name in loggers} == loggers
assert not any(off or level > logging.WARNING for level, _, off in after.values()), after
assert disabled_after == disabled == 0
assert filters_after == filters
changed = {name for name, value in os.environ.items() if environment.get(name) != value}
assert changed <= {"EPATH_USE_TF", "TF2_BEHAVIOR", "TF_ENABLE_ONEDNN_OPTS"}, changed
"""


def test_the_library_leaves_logging_and_warnings_as_they_are(untrained_run):
    environment = {name: os.environ[name] for name in os.environ if name[:6] != "TF_CPP"}
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY, str(untrained_run)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
