"""Command-line arguments that several commands share, and their types."""

import argparse
import os
import pathlib
import re
from collections.abc import Callable

from trainer.data.folder import in_bucket


def count(least: int) -> Callable[[str], int]:
    """Return an argparse type: an integer with `least` as its minimum.

    >>> count(1)("12")
    12
    """

    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer ≥ {least}")
        return int(text)

    return number


def span(text: str) -> tuple[int, int]:
    """Parse a range "N:M" of integers with 1 ≤ N ≤ M, as an argparse type.

    >>> span("10:12")
    (10, 12)
    """
    found = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not N:M with 1 ≤ N ≤ M, such as 10:12")
    return int(found[1]), int(found[2])


def phrase(text: str) -> str:
    """Return a text that is not blank, as an argparse type.

    >>> phrase("a red ring")
    'a red ring'
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is blank: give words such as 'a red ring'")
    return text


def on_disk(text: str) -> pathlib.Path:
    """Return a path on a disk, as an argparse type.

    Bucket paths (gs://, s3://) are refused: only runs and snapshots may be in a bucket.

    >>> on_disk("features/test")
    PosixPath('features/test')
    """
    if in_bucket(text):
        raise argparse.ArgumentTypeError(
            f"{text} is in a bucket: only runs and snapshots may be, so give a local path"
        )
    return pathlib.Path(text)


def add_allow_seen(parser: argparse.ArgumentParser, does: str) -> None:
    """Add --allow-seen to a command.

    Args:
      parser: the command's parser.
      does: the command's action in the help text, such as "evaluate a snapshot".
    """
    parser.add_argument(
        "--allow-seen",
        action="store_true",
        help=f"{does} even if the run was trained on some of its videos, with a warning (default: "
        "refuse)",
    )


def is_value(word: str) -> bool:
    """Return whether a word that begins with a dash is a clip_id or a file, not an option.

    YouTube ids may begin with dashes, and so may the names of files that contain them.

    >>> is_value("-4wsuPCjDBc_0_10000000_5b41c1ab"), is_value("--workers"), is_value("-h")
    (True, False, False)
    """
    return bool(re.search(r"_\d+_\d+(_[0-9a-f]*)?$", word)) or os.path.lexists(word)


def refuse_ignored(arguments: argparse.Namespace, *rules: tuple[str, object, str]) -> None:
    """End the command with a usage error if a given option would have no effect.

    Args:
      arguments: the parsed arguments, with `misused`, the parser's error. An option that is not
        given is None, False or an empty list.
      rules: the name of an option, whether it applies (by truth value), and its use in messages.
    """
    for name, applies, use in rules:
        value = getattr(arguments, name)
        absent = value is None or value is False or value == []
        if not absent and not applies:
            option = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
            arguments.misused(f"{option} applies only to {use}: leave it out")


def settings_of(arguments: argparse.Namespace, option: str) -> list[str]:
    """Return the --set settings and that of an option which sets a field of the same name.

    The command ends with a usage error if both set the field.
    """
    settings, value = list(arguments.settings), getattr(arguments, option)
    if value is not None:
        if any(setting.partition("=")[0].strip() == option for setting in settings):
            name = f"--{option.replace('_', '-')}"
            arguments.misused(f"{name} and --set {option} both set {option}: leave one out")
        settings.append(f"{option}={value}")
    return settings


def add_settings(parser: argparse.ArgumentParser, of: str = "the configuration") -> None:
    """Add --set, stored as `settings`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="FIELD=VALUE",
        help=f"set a field of {of}; may be repeated. Of two values of a field, the last one counts",
    )
