"""Record of where a run's training comes from, so that its clips can be traced.

RUN/data.json has in `lineage` {"snapshots", "earlier"}: the folders of the training snapshots in
their order, and of the run that this run started from {"run": its folder, "identity"}, or null.
The hashes of the snapshots and the earlier run's step are in data.json as well (run_folder.py).
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from trainer.configs.config import Config
from trainer.data.folder import in_bucket
from trainer.data.snapshot import Snapshot
from trainer.runs.run_folder import RunError, read, read_data, write_data
from trainer.runs.run_path import RunPath, run_path

_NAME = "lineage"


class Earlier(NamedTuple):
    """The run that a run started from."""

    run: RunPath
    step: int | None  # step of the checkpoint; None if an earlier release did not record it
    identity: str | None  # None likewise, or if the checkpoint was outside a run


def keep(run: RunPath, snapshots: Sequence[Snapshot], earlier: RunPath | None) -> None:
    """Write the record into the run's folder, which must have a data.json.

    Args:
      run: the run's folder.
      snapshots: the snapshots to train on, in their order.
      earlier: the run that it starts from, or a checkpoint of it.
    """
    before = None
    if earlier is not None:
        folder, _ = split(earlier)
        try:
            known = identity(read(folder)[0], read_data(folder))
        except (RunError, OSError):  # a checkpoint outside a run
            known = None
        before = {"run": _absolute(folder), "identity": known}
    record = {"snapshots": [_absolute(one.folder) for one in snapshots], "earlier": before}
    write_data(run, read_data(run) | {_NAME: record})


def snapshot_folders(data: dict[str, Any]) -> list[str]:
    """Return the folders of the snapshots of a data.json; [] in a run of an earlier release."""
    return [str(folder) for folder in _of(data).get("snapshots") or ()]


def earlier_run(data: dict[str, Any]) -> Earlier | None:
    """Return the run that the run of a data.json started from; None if it started from no run."""
    started = data.get("start")
    if not isinstance(started, dict) or "run" not in (started.get("options") or {}):
        return None
    given, step = split(run_path(started["options"]["run"]))
    record = _of(data).get("earlier") or {"run": given, "identity": None}
    return Earlier(run_path(record["run"]), started.get("step", step), record["identity"])


def identity(config: Config, data: dict[str, Any]) -> str:
    """Return a hash of all that selects a run's clips, which no continuation changes.

    Args:
      config: the run's configuration.
      data: its data.json.
    """
    kept = {name: value for name, value in data.items() if name not in (_NAME, "seen", "start")}
    chosen = [config.seed, config.batch, list(config.input.weights), kept]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def split(path: RunPath) -> tuple[RunPath, int | None]:
    """Return the run of a path, and the step if the path is a checkpoint of the run.

    >>> import pathlib
    >>> split(pathlib.Path("runs/first/checkpoints/40"))
    (PosixPath('runs/first'), 40)
    >>> split(pathlib.Path("runs/first"))
    (PosixPath('runs/first'), None)
    """
    if path.name.isdecimal() and path.parent.name == "checkpoints":
        return path.parent.parent, int(path.name)
    return path, None


def _absolute(folder: str | os.PathLike[str]) -> str:
    return os.fspath(folder) if in_bucket(folder) else os.path.abspath(folder)


def _of(data: dict[str, Any]) -> dict[str, Any]:
    record = data.get(_NAME)
    return record if isinstance(record, dict) else {}
