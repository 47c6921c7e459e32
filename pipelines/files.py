"""Where annotation files come from: the one place that opens and lists them."""

import os
from typing import BinaryIO


def open_input(path: str) -> BinaryIO:
    """Opens a file to read.

    Raises:
      OSError: it is not there or cannot be read.
    """
    return open(path, "rb")


def name(path: str) -> str:
    """A file's name without its folder.

    >>> name("annotations/train.json")
    'train.json'
    """
    return path.rstrip("/").rpartition("/")[2]


def expand(path: str) -> list[str]:
    """A file's own path; for a folder, the paths of the files directly in it, sorted.

    Raises:
      OSError: the folder cannot be listed.
    """
    if not os.path.isdir(path):
        return [path]
    with os.scandir(path) as entries:
        return sorted(entry.path for entry in entries if entry.is_file())
