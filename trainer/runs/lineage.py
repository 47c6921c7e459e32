"""Record of where a run's training comes from, so that its clips can be traced.

RUN/data.json has in `lineage` {"snapshots", "earlier"}: the folders of the training snapshots in
their order, and of the run that this run started from {"run": its folder, "identity"}, or null. If
the run selects clips, it has "columns" as well: the files of the columns. The hashes of snapshots
and columns and the earlier run's step are in data.json as well (run_folder.py).
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from protos import tags
from trainer.configs.config import Config
from trainer.data.folder import in_bucket
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.progress import say
from trainer.runs.run_folder import (
    RunError,
    checkpoint_steps,
    read,
    read_data,
    write_data,
)
from trainer.runs.run_path import RunPath, run_path

_NAME = "lineage"


class Earlier(NamedTuple):
    """The run that a run started from."""

    run: RunPath
    step: int | None  # step of the checkpoint; None if an earlier release did not record it
    identity: str | None  # None likewise, or if the checkpoint was outside a run


def keep(run: RunPath, clips: Mixture, earlier: RunPath | None) -> None:
    """Write the record into the run's folder, which must have a data.json.

    Args:
      run: the run's folder.
      clips: the clips to train on.
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
    folders = [_absolute(one.folder) for one in clips.snapshots]
    record: dict[str, Any] = {"snapshots": folders, "earlier": before}
    columns = [column for selection in clips.selections for column in selection.columns]
    if columns:
        record["columns"] = [_absolute(column.path) for column in columns]
    write_data(run, read_data(run) | {_NAME: record})


def open_snapshots(run: RunPath, folders: Sequence[str | os.PathLike[str]]) -> list[Snapshot]:
    """Open the snapshots to train on. A tag stands for the version on which the run began.

    Args:
      run: the run's folder, which may be missing.
      folders: the given folders or tags (CORPUS@TAG), in their order.

    Raises:
      SnapshotError: a folder holds no readable snapshot, or a tag does not exist.
      RunError: the run's data.json is damaged.
    """
    given = [os.fspath(folder) for folder in folders]
    found = [tags.reference(folder) for folder in given]
    if any(found) and checkpoint_steps(run / "checkpoints"):
        begun = snapshot_folders(read_data(run))
        for number, (tag, folder) in enumerate(zip(found, begun, strict=False)):
            if tag and folder.rpartition("/")[0] == _absolute(tag[0].rstrip("/")):
                say(f"{given[number]}: the run continues on {folder}, on which it began")
                given[number] = folder
    return [Snapshot.open(folder) for folder in given]


def snapshot_folders(data: dict[str, Any]) -> list[str]:
    """Return the folders of the snapshots of a data.json; [] in a run of an earlier release."""
    return [str(folder) for folder in _of(data).get("snapshots") or ()]


def column_entries(data: dict[str, Any]) -> list[dict[str, str]]:
    """Return the sha256 of the columns of each training snapshot of a data.json, by name.

    Raises:
      RunError: the data.json is damaged.

    >>> column_entries({"snapshot.records": 3, "snapshot.columns": {"score": "ab"}})
    [{'score': 'ab'}]
    """
    names = [name.removesuffix(".records") for name in data if name.endswith(".records")]
    entries = [data.get(f"{name}.columns", {}) for name in names]
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(one, str) for one in entry.values()):
            raise RunError(f"data.json is damaged: its columns are {entry!r:.80}; restore the file")
    return entries


def column_files(data: dict[str, Any]) -> list[str]:
    """Return the files of the columns of a data.json, of all its snapshots."""
    return [str(path) for path in _of(data).get("columns") or ()]


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
    chosen: list[Any] = [config.seed, config.batch, list(config.input.weights), kept]
    if config.input.where or config.input.weights_column:
        chosen += [list(config.input.where), list(config.input.weights_column)]
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
