"""The runs that a run's parameters come from: itself, the run that it started from, and so on."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from trainer.configs.config import Config
from trainer.data import columns
from trainer.data.columns import Column, ColumnError
from trainer.data.mixture import Mixture
from trainer.data.selection import Selection, select
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.errors import UserError
from trainer.runs import lineage, run_folder
from trainer.runs.run_folder import RunError
from trainer.runs.run_path import RunPath
from trainer.training import jsonl_log
from trainer.training.skipped_clips import NAME as SKIPPED_CLIPS


class ExposureError(UserError, RuntimeError):
    """A run whose exposure cannot be computed."""


class Trained(NamedTuple):
    """A run of the chain, and how far it was trained."""

    run: RunPath
    config: Config
    data: dict[str, Any]  # data.json
    task: dict[str, Any] | None  # task.json of a fine-tuned run
    steps: int  # number of steps whose clips count
    checkpoints: list[int]  # steps of the checkpoints on disk up to `steps`, ascending
    skipped: list[dict[str, Any]]  # skipped_clips.jsonl up to `steps`
    unknown: list[str]  # reasons for which the clips are not all known
    notes: list[str]


def follow(run: RunPath, moved: Sequence[RunPath] = ()) -> list[Trained]:
    """Return a run, the run that it started from, and so on.

    Args:
      run: the run's folder, or one of its checkpoints, RUN/checkpoints/STEP.
      moved: where the earlier runs are now, in the order of the chain; the others are where they
        were.

    Raises:
      RunError, VocabularyError: `run` is no run, or a file is damaged.
      ExposureError: `run` has no data.json.
    """
    path, step = lineage.split(run)
    chain = [_trained(path, step)]
    places = iter(moved)
    while before := lineage.earlier_run(chain[-1].data):
        last = chain[-1]
        place = next(places, before.run)
        try:
            earlier = _trained(place, before.step)
        except (UserError, OSError) as error:
            last.unknown.append(f"the run that it started from cannot be read ({error})")
            break
        found = lineage.identity(earlier.config, earlier.data)
        if before.identity not in (None, found):
            last.unknown.append(
                f"it started from the run that was in {before.run}, and {place} is another run"
            )
            break
        if before.step is None:
            last.notes.append(
                f"the step of {place} at which it started is not recorded: all steps are counted"
            )
        chain.append(earlier)
    if next(places, None) is not None:
        raise ExposureError(
            f"--earlier-run is given {len(moved)} times, but the chain of {run} has "
            f"{len(chain) - 1} earlier runs: give at most one for each"
        )
    return chain


def _trained(run: RunPath, at_step: int | None) -> Trained:
    """Return a run as it was after `at_step` steps; None: as it is now."""
    config, _ = run_folder.read(run)
    try:
        data = run_folder.read_data(run)
    except FileNotFoundError:
        raise ExposureError(
            f"{run} has no data.json, which identifies its training snapshots: restore the file"
        ) from None
    if "imported" in data:  # An export has no record of replaced clips, nor of earlier runs.
        raise ExposureError(
            f"{run} was imported from an export, which does not record the steps of clips: give "
            "the run that was exported"
        )
    checkpoints = sorted(run_folder.checkpoint_steps(run / "checkpoints"))
    measured = jsonl_log.read(run / "metrics.jsonl")
    reached = max([0, *checkpoints, *(record["step"] for record in measured)])
    step = reached if at_step is None else at_step
    checkpoints = [saved for saved in checkpoints if saved <= step]
    skipped = [record for record in _skipped(run) if record["step"] <= step]
    known = [record for record in measured if record["step"] <= step]
    unknown, notes = [], []
    missing = sum(record.get("corrupt_records", 0) for record in known) - len(skipped)
    if missing > 0:
        unknown.append(
            f"{missing:,} clips replaced corrupt ones in steps that an earlier release trained, "
            "which did not record them"
        )
    options = (data.get("start") or {}).get("options", {})
    weights = [options[name] for name in ("video", "text") if name in options]
    if weights:
        notes.append(f"the training clips of {' and '.join(weights)} are unknown")
    task = run_folder.read_task(run)
    return Trained(run, config, data, task, step, checkpoints, skipped, unknown, notes)


def _skipped(run: RunPath) -> list[dict[str, Any]]:
    """Return the lines of skipped_clips.jsonl.

    Raises:
      RunError: a line is damaged.
    """
    found = jsonl_log.read(run / SKIPPED_CLIPS)
    for number, line in enumerate(found, 1):
        if any(type(line.get(name)) is not int for name in ("row", "record", "replacement")):
            raise RunError(
                f"{run / SKIPPED_CLIPS}:{number} is damaged: it has no row, record and "
                "replacement; restore the file"
            )
    return found


def open_mixture(
    trained: Trained, given: Sequence[Snapshot], column_files: Sequence[str | os.PathLike[str]] = ()
) -> Mixture:
    """Return a run's training snapshots and its choice of their clips, checked against data.json.

    Args:
      trained: the run.
      given: snapshots to use instead of the recorded folders, in any order.
      column_files: files of columns to use instead of the recorded ones, in any order.

    Raises:
      ExposureError: a snapshot or a column was moved or is another version now.
    """
    entries = run_folder.snapshot_entries(trained.data)
    folders = lineage.snapshot_folders(trained.data)
    found = []
    for number, entry in enumerate(entries):
        fits = [one for one in given if run_folder.snapshot_entry(one) == entry]
        if not fits and number < len(folders):
            try:
                there = Snapshot.open(folders[number])
            except SnapshotError:
                there = None
            fits = [there] if there and run_folder.snapshot_entry(there) == entry else []
        if not fits:
            where = f", which was in {folders[number]}" if number < len(folders) else ""
            raise ExposureError(
                f"snapshot {number + 1} of {trained.run} is missing ({entry['dataset']}, "
                f"{entry['records']} records, inputs_sha256 {str(entry['inputs_sha256'])[:12]}…)"
                f"{where}: give the version that it was trained on with --snapshot"
            )
        found.append(fits[0])
    if not found:
        raise RunError(f"{trained.run / 'data.json'} lists no snapshot: restore the file")
    selections = _selections(trained, found, column_files)
    return Mixture(found, trained.config.input.weights, selections)


def _selections(
    trained: Trained, snapshots: Sequence[Snapshot], given: Sequence[str | os.PathLike[str]]
) -> list[Selection]:
    """Return the clips that a run was trained on, of each snapshot.

    Raises:
      ExposureError: a column is missing or has other values now.
    """
    recorded = lineage.column_entries(trained.data)
    wanted = {(number, name) for number, of in enumerate(recorded) for name in of}
    numbers = {snapshot.manifest_sha256: number for number, snapshot in enumerate(snapshots)}
    found: dict[tuple[int, str], Column] = {}
    for path in (*given, *lineage.column_files(trained.data)) if wanted else ():
        try:
            column = columns.read(path)
        except ColumnError:
            if path in given:
                raise
            continue
        number = numbers.get(column.manifest_sha256, -1)
        if number >= 0 and recorded[number].get(column.name) == column.values_sha256:
            found.setdefault((number, column.name), column)
    if missing := sorted(wanted - found.keys()):
        number, name = missing[0]
        raise ExposureError(
            f"column {name} of {snapshots[number].folder}, by which {trained.run} selected its "
            f"clips, is missing or has other values (sha256 {recorded[number][name][:12]}…): give "
            "the column that it was trained with by --column"
        )
    return select(snapshots, found.values(), trained.config.input)
