"""JSON Lines of a run, an object with its "step" a line, cut back when the run goes on earlier."""

import json
import os
import pathlib
from typing import Any


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The objects of a file; none if it is not there.

    A line that a killed process left unfinished is left out.
    """
    if not path.exists():
        return []
    whole_lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in whole_lines]


def cut(path: pathlib.Path, step: int) -> list[dict[str, Any]]:
    """Removes what was written of later steps than `step`; returns what is left."""
    kept = [record for record in read(path) if record["step"] <= step]
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text("".join(json.dumps(record) + "\n" for record in kept))
    os.replace(unfinished, path)
    return kept
