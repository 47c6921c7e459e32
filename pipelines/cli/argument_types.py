"""Option types for argparse: each parses a string or raises ArgumentTypeError."""

import argparse
import decimal
import os
import re
from collections.abc import Callable
from typing import Any, Protocol


class Commands(Protocol):
    """The object that `add_subparsers` returns, whose type has no public name in argparse."""

    def add_parser(self, name: str, **settings: Any) -> argparse.ArgumentParser:
        """Add a command and return its parser."""
        ...


def count(minimum: int, maximum: int = 1 << 31) -> Callable[[str], int]:
    """Return an argparse type that parses an integer from `minimum` to `maximum`, inclusive.

    >>> count(1)("12")
    12
    """

    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not minimum <= int(text) <= maximum:
            what = f"from {minimum} to {maximum}" if maximum < 1 << 31 else f"of at least {minimum}"
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer {what}")
        return int(text)

    return number


def seconds(text: str) -> float:
    """Parse a positive number of seconds.

    >>> seconds("1.5")
    1.5
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def seconds_as_us(text: str) -> int:
    """Parse a positive number of seconds and return it in microseconds.

    >>> seconds_as_us("1.5")
    1500000
    """
    return round(seconds(text) * 1_000_000)


def number(maximum: float) -> Callable[[str], float]:
    """Return an argparse type that parses a number from 0 to `maximum`, inclusive.

    >>> number(1)("0.9")
    0.9
    """

    def value(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = -1.0
        if not 0 <= found <= maximum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {maximum:g}")
        return found

    return value


def shares(text: str) -> tuple[float, ...]:
    """Parse two or three shares that add up to 1.

    >>> shares("0.8/0.1/0.1")
    (0.8, 0.1, 0.1)
    """
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(re.fullmatch(r"0?\.[0-9]{1,9}", part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not two or three shares between 0 and 1: write 0.9/0.1, for example"
        )
    if not all(map(float, parts)):
        raise argparse.ArgumentTypeError(f"{text!r} contains a share of 0: give positive shares")
    total = sum(map(decimal.Decimal, parts))
    if total != 1:
        raise argparse.ArgumentTypeError(
            f"the shares {text} add up to {total}: they must add up to 1"
        )
    return tuple(map(float, parts))


def size(text: str) -> float:
    """Parse a size with an SI unit and return it in bytes.

    >>> size("1.5TB")
    1500000000000.0
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([kMGT]B)", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: write 500GB or 1.5TB, for example"
        )
    return float(found[1]) * {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[found[2]]


def semantic_version(text: str) -> str:
    """Check the form of a semantic version such as 1.0.0 and return it.

    >>> semantic_version("1.10.0")
    '1.10.0'
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a semantic version: write 1.0.0, for example"
        )
    return text


def is_value(word: str) -> bool:
    """Return whether a word that begins with a dash is a clip_id or a file, not an option.

    YouTube ids may begin with a dash. So may files that are named after them.

    >>> is_value("-4wsuPCjDBc_0_10000000_5b41c1ab"), is_value("--workers"), is_value("-h")
    (True, False, False)
    """
    return bool(re.search(r"_\d+_\d+(_[0-9a-f]*)?$", word)) or os.path.lexists(word)
